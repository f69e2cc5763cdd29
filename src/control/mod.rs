//! Changing the truth while it runs: reload, hand-over, signals, drain.
