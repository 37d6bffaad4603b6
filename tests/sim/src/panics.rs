//! Panics of the product: a task that panics ends quietly under tokio, but here it is a finding (K10).

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics of this thread are remembered. A simulation runs on one thread.
pub fn watch() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let _ = SEEN.try_with(|seen| seen.borrow_mut().push(info.to_string()));
            before(info);
        }));
    });
    SEEN.with(|seen| seen.borrow_mut().clear());
}

/// What panicked on this thread since [`watch`].
pub fn seen() -> Vec<String> {
    SEEN.with(|seen| seen.borrow().clone())
}
