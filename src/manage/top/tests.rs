//! What is drawn, on a terminal that is none.
