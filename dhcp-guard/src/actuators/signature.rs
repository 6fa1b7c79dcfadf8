//! How the receiver of a webhook can tell that it is ours: HMAC-SHA256 over time and body, with a secret from a file.

use std::{fmt::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, Take},
};

use super::Failure;

/// More than any secret has, bytes.
const MAX_SECRET: u64 = 4096;

/// The secret in a file, without the line end. It is read for each job, so it can be changed at any time.
pub(super) async fn secret(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |what: &str| Failure::Failed(format!("cannot use the secret in {}: {what}", path.display()));
    let file = File::open(path).await.map_err(|e| cannot(&e.to_string()))?;
    let metadata = file.metadata().await.map_err(|e| cannot(&e.to_string()))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(cannot("others may read or change it, use chmod o="));
    }
    let mut secret = Vec::new();
    let mut bounded: Take<File> = file.take(MAX_SECRET + 1);
    bounded.read_to_end(&mut secret).await.map_err(|e| cannot(&e.to_string()))?;
    if secret.len() as u64 > MAX_SECRET {
        return Err(cannot("it is longer than 4,096 bytes"));
    }
    secret.truncate(secret.trim_ascii_end().len());
    if secret.is_empty() {
        return Err(cannot("the file is empty"));
    }
    Ok(secret)
}

/// `sha256=…`: of the time, in seconds since 1970, a dot, and the body.
pub(super) fn sign(secret: &[u8], time_s: i64, body: &[u8]) -> Result<String, Failure> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|e| Failure::Failed(format!("cannot sign: {e}")))?;
    mac.update(time_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::Permissions};

    use super::*;

    #[test]
    fn as_anybody_else_computes_it() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            sign(b"key", 1_700_000_000, b"{\"a\":1}").unwrap(),
            "sha256=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
        );
    }

    #[tokio::test]
    async fn a_secret_is_kept_from_others_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let of = async |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            secret(&path).await.map_err(|e| e.to_string().rsplit(": ").next().unwrap().to_owned())
        };
        assert_eq!(of("s3cret\n", 0o640).await, Ok(b"s3cret".to_vec()));
        assert_eq!(of("s3cret\n", 0o644).await, Err("others may read or change it, use chmod o=".to_owned()));
        assert_eq!(of(" \n", 0o600).await, Err("the file is empty".to_owned()));
        assert!(of(&"x".repeat(4097), 0o600).await.unwrap_err().contains("longer"));
        fs::remove_file(&path).unwrap();
        assert!(secret(&path).await.unwrap_err().to_string().contains("No such file"));
    }
}
