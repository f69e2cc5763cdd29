//! Wiring, and the only place that wires.
