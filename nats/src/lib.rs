//! A cluster over NATS.
