//! A source on scripted nodes: what a real one cannot be made to do.
