//! The internal port: cluster identity, mutual TLS, tuned gRPC channels and servers.
