//! Our own accept loop: caps, deadlines, TLS and the strict reading of request heads.
