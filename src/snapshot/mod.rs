//! One moment's whole truth, ready to serve.
