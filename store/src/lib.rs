//! The facade: pick an engine by cargo feature, open it by URL
