//! Watches: which wallet's address is followed on which chain since which block.
