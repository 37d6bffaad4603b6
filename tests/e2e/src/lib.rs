//! Real processes under real clients.
