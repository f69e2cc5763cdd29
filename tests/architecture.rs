//! The floors of the house: a module imports from lower floors only.
