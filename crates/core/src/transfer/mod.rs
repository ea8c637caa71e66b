//! Import and export of walkthroughs as files.
