//! HTTP, SigV4, XML and checksums to and from typed requests.
