//! Messages, error codes and client of a storage node.
