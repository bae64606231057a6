use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A folder with files that openssl makes.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("openssl runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {error}");
    }

    /// A key of that kind (arguments of `openssl genpkey`) and its certificate: `NAME.key`, `NAME.crt`.
    fn make(&self, name: &str, kind: &str) {
        self.openssl(&format!("genpkey {kind} -out {name}.key"));
        self.openssl(&format!(
            "req -x509 -key {name}.key -subj /CN={name} -days 30 -out {name}.crt"
        ));
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The problem with that pair of files; none if a server can use it.
    fn problem(&self, key: &str, cert: &str) -> Option<PemProblem> {
        let error = pair(&self.path(key), &self.path(cert)).err()?;
        let text = error.to_string();
        assert!(text.starts_with(self.0.path().to_str().unwrap()), "{text}");
        self.assert_shows_no_byte_of(key, &text);
        assert!(!error.problem.hint().is_empty());
        Some(error.problem)
    }

    /// No eight letters in a row of a file's base64, and no list of numbers.
    fn assert_shows_no_byte_of(&self, file: &str, text: &str) {
        assert!(
            !text.contains("[45, 45") && !text.contains(", 45, 45"),
            "{text}"
        );
        let bytes = fs::read(self.path(file)).unwrap_or_default();
        let secret = String::from_utf8_lossy(&bytes).into_owned();
        for line in secret.lines().filter(|line| !line.contains("BEGIN")) {
            let letters: Vec<char> = line.chars().collect();
            for window in letters.windows(8) {
                let window: String = window.iter().collect();
                let is_key = window.bytes().all(|byte| byte.is_ascii_alphanumeric());
                assert!(!is_key || !text.contains(&window), "{window:?} in {text:?}");
            }
        }
    }
}

/// A name, and what makes that variant of a file.
type Variant = (&'static str, fn(&str) -> String);

const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

/// A key and certificate that can be used: `good.key`, `good.crt`.
fn good() -> Files {
    let files = Files::new();
    files.make("good", EC);
    assert_eq!(files.problem("good.key", "good.crt"), None);
    files
}

#[test]
fn supported_keys_are_taken_in_each_of_their_forms() {
    let files = Files::new();
    for (name, kind) in [
        ("p256", EC),
        ("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
        ("ed25519", "-algorithm ED25519"),
    ] {
        files.make(name, kind);
        let cert = format!("{name}.crt");
        assert_eq!(files.problem(&format!("{name}.key"), &cert), None, "{name}");
        if name != "ed25519" {
            files.openssl(&format!("pkey -in {name}.key -traditional -out {name}.old"));
            let old = files.text(&format!("{name}.old"));
            assert!(!old.contains("BEGIN PRIVATE KEY"), "{old}");
            assert_eq!(files.problem(&format!("{name}.old"), &cert), None, "{name}");
        }
    }
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    files.write(
        "parameters.key",
        parameters.to_owned() + &files.text("p256.old"),
    );
    assert_eq!(files.problem("parameters.key", "p256.crt"), None);
}

#[test]
fn a_key_without_its_line_breaks_is_named_and_not_shown() {
    let files = good();
    let key = files.text("good.key");
    files.write("joined.key", key.replace('\n', ""));
    files.write("blanks.key", key.replace('\n', " "));
    files.write("escaped.key", key.replace('\n', r"\n"));
    files.write("quoted.key", format!("\"{}\"\n", key.replace('\n', r"\n")));
    files.write("windows.key", key.replace('\n', r"\r\n"));
    files.write(
        "late.key",
        format!("# the key\n{}\n", key.replace('\n', "")),
    );
    files.write("half.key", key.replacen('\n', "", 1));
    files.write("end.key", key.replace("\n-----END", "-----END"));
    files.write(
        "after.key",
        key.replacen('\n', "", 1)
            .replacen("-----BEGIN", "\n-----BEGIN", 1),
    );
    for (name, expected) in [
        ("joined.key", PemProblem::NoLineBreaks(1)),
        ("blanks.key", PemProblem::NoLineBreaks(1)),
        ("escaped.key", PemProblem::EscapedLineBreaks(1)),
        ("quoted.key", PemProblem::EscapedLineBreaks(1)),
        ("windows.key", PemProblem::EscapedLineBreaks(1)),
        ("late.key", PemProblem::NoLineBreaks(2)),
        ("half.key", PemProblem::NoLineBreaks(1)),
        ("end.key", PemProblem::NoLineBreaks(4)),
        ("after.key", PemProblem::NoLineBreaks(2)),
    ] {
        assert_eq!(files.problem(name, "good.crt"), Some(expected), "{name}");
    }
    let text = PemProblem::NoLineBreaks(1).to_string();
    assert_eq!(text, "not a PEM file: no line breaks (line 1)");
    files.write("joined.crt", files.text("good.crt").replace('\n', ""));
    let problem = files.problem("good.key", "joined.crt");
    assert_eq!(problem, Some(PemProblem::NoLineBreaks(1)));
}

#[test]
fn marks_line_ends_and_text_around_the_blocks_are_taken() {
    let files = good();
    let (key, cert) = (files.text("good.key"), files.text("good.crt"));
    let variants: [Variant; 7] = [
        ("mark", |text| format!("\u{feff}{text}")),
        ("crlf", |text| text.replace('\n', "\r\n")),
        ("cr", |text| text.replace('\n', "\r")),
        ("around", |text| {
            format!("Bag Attributes\n  name: -----BEGIN here\n\n{text}\n# the end\n")
        }),
        ("indented", |text| text.replace('\n', " \n  ")),
        ("no-last-break", |text| text.trim_end().to_owned()),
        ("apart", |text| text.replace('\n', "\n\n")),
    ];
    for (name, variant) in variants {
        files.write("variant.key", variant(&key));
        files.write("variant.crt", variant(&cert));
        assert_eq!(files.problem("variant.key", "variant.crt"), None, "{name}");
    }
    // Both in one file, in either order, and certificates joined without a line break.
    files.write("both", format!("{cert}{key}"));
    assert_eq!(files.problem("both", "both"), None);
    files.write("both", format!("{key}{cert}"));
    assert_eq!(files.problem("both", "both"), None);
    files.write("chain.crt", format!("{}{cert}", cert.trim_end()));
    assert_eq!(chain(&files.path("chain.crt")).unwrap().len(), 2);
}

#[test]
fn an_encrypted_key_has_to_be_decrypted_first() {
    let files = good();
    files.openssl("pkey -in good.key -aes256 -passout pass:secret -out new.key");
    files.openssl("ec -in good.key -aes256 -passout pass:secret -out old.key");
    assert!(files.text("old.key").contains("Proc-Type: 4,ENCRYPTED"));
    for name in ["new.key", "old.key"] {
        let problem = files.problem(name, "good.crt").unwrap();
        assert_eq!(problem, PemProblem::Encrypted, "{name}");
        assert!(problem.to_string().contains("decrypt it first"));
    }
}

#[test]
fn a_kind_of_key_that_is_not_supported_is_named_as_that() {
    let files = good();
    for (kind, name) in [
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
            "RSA of 1024 bits",
        ),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            "ECDSA on P-521",
        ),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
            "ECDSA on secp256k1",
        ),
        ("-algorithm ED448", "Ed448"),
        (
            "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
            "RSA-PSS",
        ),
    ] {
        files.make("odd", kind);
        let problem = files.problem("odd.key", "odd.crt");
        assert_eq!(problem, Some(PemProblem::UnsupportedKey(name.into())));
    }
    files.openssl("genrsa -traditional -out short.key 1024");
    let problem = files.problem("short.key", "good.crt");
    assert_eq!(
        problem,
        Some(PemProblem::UnsupportedKey("RSA of 1024 bits".into()))
    );
    files.openssl("ecparam -name secp521r1 -genkey -out p521.key");
    let problem = files.problem("p521.key", "good.crt");
    assert_eq!(
        problem,
        Some(PemProblem::UnsupportedKey("ECDSA on P-521".into()))
    );
    files.openssl("genpkey -algorithm X25519 -out x.key");
    let problem = files.problem("x.key", "good.crt");
    assert_eq!(problem, Some(PemProblem::UnsupportedKey("X25519".into())));
    files.openssl("dsaparam -genkey -out dsa.key 1024");
    let problem = files.problem("dsa.key", "good.crt").unwrap();
    assert_eq!(problem, PemProblem::UnsupportedKey("DSA".into()));
    let text = problem.to_string();
    assert!(text.contains("this kind of key is not supported"), "{text}");
    assert!(text.contains("supported are RSA of 2048"), "{text}");
    assert!(!text.contains("made together"), "{text}");
}

#[test]
fn another_key_or_a_chain_in_the_wrong_order_was_not_made_together() {
    let files = good();
    files.make("other", EC);
    let other = files.problem("other.key", "good.crt").unwrap();
    assert_eq!(other, PemProblem::OtherCertificate(files.path("good.crt")));
    assert!(other.to_string().contains("were not made together"));
    files.write(
        "turned.crt",
        files.text("good.crt") + &files.text("other.crt"),
    );
    let turned = files.problem("other.key", "turned.crt").unwrap();
    let cert = files.path("turned.crt");
    assert_eq!(turned, PemProblem::WrongOrder { cert, number: 2 });
    assert!(turned.hint().contains("first"), "{turned}");
    assert_eq!(files.problem("good.key", "turned.crt"), None);
}

#[test]
fn a_certificate_of_version_1_is_named_as_that() {
    let files = good();
    files.openssl("req -new -key good.key -subj /CN=old -out good.csr");
    files.openssl("x509 -req -in good.csr -signkey good.key -days 30 -out old.crt");
    let problem = files.problem("good.key", "old.crt");
    assert_eq!(problem, Some(PemProblem::OldCertificate));
    let problem = files.problem("good.key", "good.csr").unwrap();
    assert!(
        problem.to_string().contains("a certificate request"),
        "{problem}"
    );
}

#[test]
fn files_of_another_kind_are_named_as_what_they_are() {
    let files = good();
    files.openssl("x509 -in good.crt -outform DER -out good.der");
    files.openssl("pkey -in good.key -outform DER -out key.der");
    files.openssl("pkey -in good.key -traditional -outform DER -out old.der");
    files.openssl("pkcs12 -export -inkey good.key -in good.crt -passout pass: -out good.p12");
    files.openssl("pkey -in good.key -pubout -out good.pub");
    files.openssl("crl2pkcs7 -nocrl -certfile good.crt -out good.p7b");
    files.openssl("x509 -in good.crt -trustout -out trusted.crt");
    let utf16 = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    files.write(
        "wide.key",
        utf16(&format!("\u{feff}{}", files.text("good.key"))),
    );
    files.write("wide-unmarked.key", utf16(&files.text("good.key")));
    files.write("empty", "");
    files.write("blank", "\u{feff} \r\n\n");
    files.write("words", "to be done\n");
    let key = files.text("good.key");
    files.write("bare", key.lines().nth(1).unwrap());
    for (name, expected) in [
        ("key.der", PemProblem::Der),
        ("old.der", PemProblem::Der),
        ("good.p12", PemProblem::Pkcs12),
        ("wide.key", PemProblem::Utf16),
        ("wide-unmarked.key", PemProblem::Utf16),
        ("empty", PemProblem::Empty),
        ("blank", PemProblem::Empty),
        ("words", PemProblem::NoBlock),
        ("bare", PemProblem::NoBlock),
        ("good.crt", PemProblem::NoKey("a certificate")),
        ("good.pub", PemProblem::NoKey("a public key")),
        ("absent", PemProblem::Missing),
        (".", PemProblem::Folder),
    ] {
        assert_eq!(files.problem(name, "good.crt"), Some(expected), "{name}");
    }
    for (name, expected) in [
        ("good.der", PemProblem::Der),
        ("good.p12", PemProblem::Pkcs12),
        ("empty", PemProblem::Empty),
        ("good.key", PemProblem::NoCertificate("a private key")),
        ("good.pub", PemProblem::NoCertificate("a public key")),
        ("absent", PemProblem::Missing),
    ] {
        assert_eq!(files.problem("good.key", name), Some(expected), "{name}");
    }
    for (name, part) in [
        ("good.p7b", "PKCS#7"),
        ("trusted.crt", "TRUSTED CERTIFICATE"),
    ] {
        let problem = files.problem("good.key", name).unwrap();
        assert!(problem.to_string().contains(part), "{problem}");
    }
    assert!(
        matches!(chain(&PathBuf::from("/dev/zero")), Err(error) if error.problem == PemProblem::NotAFile)
    );
}

#[test]
fn damaged_files_are_named_by_the_line() {
    let files = good();
    let key = files.text("good.key");
    let lines: Vec<&str> = key.lines().collect();
    let last = lines.len() - 1;
    files.write("bad.key", key.replacen(lines[2], "not base64!", 1));
    files.write("short.key", key.replacen(lines[1], &lines[1][..63], 1));
    files.write("open.key", lines[..last].join("\n"));
    files.write("cut-end.key", key.trim_end().trim_end_matches('-'));
    files.write(
        "other-end.key",
        key.replace("END PRIVATE", "END RSA PRIVATE"),
    );
    files.write(
        "twice-begun.key",
        format!("{}\n{key}", lines[..last].join("\n")),
    );
    files.write("nothing.key", format!("{}\n{}\n", lines[0], lines[last]));
    files.write(
        "swapped.key",
        format!("{}\n{}\n{}\n", lines[0], lines[2], lines[last]),
    );
    files.write(
        "false.key",
        files.text("good.crt").replace("CERTIFICATE", "PRIVATE KEY"),
    );
    files.write("false.crt", key.replace("PRIVATE KEY", "CERTIFICATE"));
    files.make("more", EC);
    files.write("two.key", key.clone() + &files.text("more.key"));
    files.write("same.key", key.clone() + &key);
    for (name, expected) in [
        ("bad.key", Some(PemProblem::BadLine(3))),
        ("open.key", Some(PemProblem::NoEnd(1))),
        ("cut-end.key", Some(PemProblem::NoEnd(1))),
        ("other-end.key", Some(PemProblem::NoEnd(1))),
        ("twice-begun.key", Some(PemProblem::NoEnd(1))),
        ("nothing.key", Some(PemProblem::BadBase64(1))),
        ("swapped.key", Some(PemProblem::DamagedKey)),
        ("false.key", Some(PemProblem::DamagedKey)),
        ("two.key", Some(PemProblem::SeveralKeys(2))),
        ("same.key", None),
    ] {
        assert_eq!(files.problem(name, "good.crt"), expected, "{name}");
    }
    // What is left may still be valid base64, depending on its last bits.
    let problem = files.problem("short.key", "good.crt");
    assert!(
        matches!(
            problem,
            Some(PemProblem::BadBase64(1) | PemProblem::DamagedKey)
        ),
        "{problem:?}"
    );
    let problem = files.problem("good.key", "false.crt");
    assert_eq!(problem, Some(PemProblem::DamagedCertificate));
    files.write("huge.key", " ".repeat(2 << 20) + &key);
    assert_eq!(
        files.problem("huge.key", "good.crt"),
        Some(PemProblem::TooLarge)
    );
}

#[test]
fn a_file_that_may_not_be_read_is_named_as_that() {
    if rustix::process::geteuid().is_root() {
        return; // root may read everything
    }
    let files = good();
    let closed = fs::Permissions::from_mode(0o000);
    fs::set_permissions(files.path("good.key"), closed).unwrap();
    let problem = files.problem("good.key", "good.crt").unwrap();
    assert_eq!(
        problem,
        PemProblem::Unreadable(io::ErrorKind::PermissionDenied)
    );
}
