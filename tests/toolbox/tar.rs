//! A writer for tar archives in the POSIX format, sufficient for the layer of an image.

/// A file in an archive.
#[derive(Debug, Clone)]
pub struct File {
    /// The path without a leading slash, at most 100 bytes.
    pub path: String,
    /// The permissions.
    pub mode: u32,
    /// The content.
    pub content: Vec<u8>,
}

/// Returns an archive with these files, which belong to root.
pub fn archive(files: &[File]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend(header(file));
        bytes.extend(&file.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn header(file: &File) -> [u8; 512] {
    let mut header = [0; 512];
    let mut write = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    assert!(file.path.len() <= 100, "the path fits");
    write(0, &file.path);
    write(100, &format!("{:07o}", file.mode));
    // User, group and time.
    write(108, "0000000");
    write(116, "0000000");
    write(124, &format!("{:011o}", file.content.len()));
    write(136, "00000000000");
    // The checksum field counts as spaces in the checksum. `0` is a regular file.
    write(148, "        0");
    write(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
