/* Preloaded into the process of a simulation: the operating system's randomness is the same in every run.
 *
 * Tokio draws the order in which a watch channel wakes its receivers, and the branches of a select, from a generator that it
 * seeds with std's RandomState, and lets nobody else seed without `--cfg tokio_unstable`. This is where RandomState begins. */
#include <stddef.h>
#include <sys/types.h>

ssize_t getrandom(void *bytes, size_t length, unsigned int flags) {
    unsigned char *at = bytes;
    (void)flags;
    for (size_t index = 0; index < length; index++) {
        at[index] = (unsigned char)(index * 37 + 11);
    }
    return (ssize_t)length;
}
