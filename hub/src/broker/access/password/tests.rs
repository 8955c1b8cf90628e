//! Hashes that others read and write too: Python's argon2-cffi, over the reference implementation in C.

use std::path::PathBuf;
use std::process::Command;

use super::*;

fn python() -> Command {
    let folder = std::env::var_os("FOREBAY_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv"), PathBuf::from);
    Command::new(folder.join("bin/python"))
}

fn run(code: &str, arguments: &[&str]) -> String {
    let output = python().args(["-c", code]).args(arguments).output().expect("scripts/peers makes the venv");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn argon2_cffi_verifies_ours_and_we_verify_its() {
    let ours = hash_password("Ölpumpe 7!".as_bytes()).unwrap();
    assert!(ours.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{ours}");
    let verify = "import sys, argon2\nfrom argon2.exceptions import VerifyMismatchError\nh = argon2.PasswordHasher()\n\
                  assert h.verify(sys.argv[1], 'Ölpumpe 7!')\n\
                  try:\n  h.verify(sys.argv[1], 'wrong'); print('took a wrong one')\nexcept VerifyMismatchError: print('good')";
    assert_eq!(run(verify, &[&ours]), "good");
    let theirs = run("import argon2; print(argon2.PasswordHasher(memory_cost=8192).hash('Ölpumpe 7!'))", &[]);
    let theirs = PasswordHash::parse(&theirs).unwrap();
    let memory = &mut HashMemory::default();
    assert!(theirs.is_of("Ölpumpe 7!".as_bytes(), memory) && !theirs.is_of(b"wrong", memory));
}

#[test]
fn a_hash_is_salted_and_fits_one_password() {
    let (one, other) = (hash_password(b"pw").unwrap(), hash_password(b"pw").unwrap());
    assert_ne!(one, other);
    let one = PasswordHash::parse(&one).unwrap();
    let mut memory = HashMemory::default();
    assert!(one.is_of(b"pw", &mut memory) && !one.is_of(b"pw ", &mut memory) && !one.is_of(b"", &mut memory));
    let larger = hash(b"pw", 2 * MEMORY_KIB, 1).map(|text| PasswordHash::parse(&text).unwrap()).unwrap();
    assert!(
        larger.is_of(b"pw", &mut memory) && one.is_of(b"pw", &mut memory),
        "more memory than needed is no harm"
    );
    let mut memory = memory.tidied();
    assert_eq!(memory.0.len(), MEMORY_KIB as usize);
    assert!(one.is_of(b"pw", &mut memory) && larger.is_of(b"pw", &mut memory));
    assert!(hash_password(b"").is_err() && hash_password(&[b'x'; PASSWORD_BYTES_MAX + 1]).is_err());
    let nobody = PasswordHash::of_nobody().unwrap();
    assert_eq!(nobody.text().split('$').nth(3), one.text().split('$').nth(3), "the same cost");
}

#[test]
fn only_argon2id_that_takes_bounded_time_is_taken() {
    let good =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ";
    assert!(PasswordHash::parse(good).is_ok());
    for bad in [
        "",
        "secret",
        "$argon2id$",
        &good.replace("argon2id", "argon2i"),
        &good.replace("argon2id", "scrypt"),
        &good.replace("m=64", "m=4194304"),
        &good.replace("t=1", "t=1000"),
        &good.replace("p=1", "p=64"),
        &good.replace("m=64", "m=1"),
        good.rsplit_once('$').unwrap().0,
    ] {
        assert!(PasswordHash::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_token_is_known_by_its_hash() {
    let token = NewToken::make().unwrap();
    assert_eq!(token.text.len(), 43);
    assert_eq!(parse_token_hash(&token.hash), Ok(token_hash(token.text.as_bytes())));
    assert_ne!(NewToken::make().unwrap().text, token.text);
    // The digest that `printf abc | sha256sum` prints.
    let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(parse_token_hash(known), Ok(token_hash(b"abc")));
    let digits = "0".repeat(63);
    for bad in [
        "",
        "sha256:",
        "abc",
        &format!("sha256:{digits}"),
        &format!("sha256:{digits}g"),
        &format!("sha256:+{digits}"),
    ] {
        assert!(parse_token_hash(bad).is_err(), "{bad}");
    }
    assert!(parse_token_hash(&format!("sha256:{}ö", "0".repeat(62))).is_err());
}

#[test]
fn comparing_looks_at_everything() {
    assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"ab", b"abc") && !same(b"", b""));
}
