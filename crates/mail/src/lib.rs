//! Mail: one trait, by SMTP, to the terminal, or into memory for tests.
