//! Shape checks of the tree.
