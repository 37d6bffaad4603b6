//! Membership, failure detection and cluster-map changes.
