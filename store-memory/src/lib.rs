//! The in-process engine: typed records, no file
