//! Transactions with a backend played by hand.
