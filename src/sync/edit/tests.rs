use super::*;

#[test]
fn random_passkeys_are_lower_case_letters_and_digits_and_differ() {
    let first = random_passkey().unwrap();
    assert_eq!(first.expose().len(), 32);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    assert!(first.expose().bytes().all(plain));
    assert_ne!(first, random_passkey().unwrap());
}

#[test]
fn every_symbol_of_a_passkey_is_equally_likely() {
    let mut counts = [0_u32; 128];
    for _ in 0..2000 {
        for byte in random_passkey().unwrap().expose().bytes() {
            counts[usize::from(byte)] += 1;
        }
    }
    // 64,000 draws of 36 symbols: 1778 each, 6 sigma are 250.
    let drawn: Vec<u32> = counts.into_iter().filter(|&count| count > 0).collect();
    assert_eq!(drawn.len(), 36);
    assert!(
        drawn.iter().all(|&count| count.abs_diff(1778) < 250),
        "{drawn:?}"
    );
}

#[test]
fn a_prefix_is_what_a_client_may_send() {
    let valid = |prefix: &str, name: &str| {
        let client = ClientPrefix {
            prefix: prefix.into(),
            name: name.into(),
        };
        validate_client(&client).is_ok()
    };
    for good in [
        "-qB",
        "-TR3000-",
        "M4-3-6--",
        "a",
        "12345678901234567890",
        "-a b-",
    ] {
        assert!(valid(good, "name"), "{good}");
    }
    for bad in [
        "",
        "123456789012345678901",
        " -qB",
        "-qB ",
        "-ü",
        "-\t",
        "#-qB",
    ] {
        assert!(!valid(bad, "name"), "{bad}");
    }
    assert!(valid("-qB", ""), "rows of a site need not have a name");
    assert!(!valid("-qB", "a\nb"));
    assert!(valid("-qB", &"ü".repeat(255)));
    assert!(!valid("-qB", &"ü".repeat(256)));
}
