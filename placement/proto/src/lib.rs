//! Messages and client of the placement service.
