//! Policies, certificates, identities.

use super::*;

#[tokio::test]
async fn every_security_policy_and_mode_carries_values() {
    let dir = tempfile::tempdir().unwrap();
    let all = ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"];
    let names: Vec<String> = all
        .iter()
        .flat_map(|policy| ["Sign", "SignAndEncrypt"].map(|mode| format!("{policy}_{mode}")))
        .collect();
    let server = Server::start(json!({"cert_dir": dir.path(), "security": names}));
    let url_keys = |security: &str| format!("security = \"{security}\"");
    let mut stranger = server.candidate(&[COUNTER], &url_keys("best")).driver();
    let refused = stranger.open(None).await.unwrap_err();
    assert!(matches!(refused, DriverError::Config(_)), "{refused}");
    trust_the_rejected(&server, &refused.to_string());
    for policy in ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"] {
        for mode in ["/Sign", "/SignAndEncrypt", ""] {
            let security = format!("{policy}{mode}");
            let mut driver = server.candidate(&[COUNTER], &url_keys(&security)).driver();
            driver.open(None).await.unwrap_or_else(|error| panic!("{security}: {error}"));
            assert_eq!(int(&round(driver.as_mut()).await[0]), Some(0), "{security}");
            driver.close().await;
        }
    }
    let mut none = server.candidate(&[COUNTER], &url_keys("none")).driver();
    let refused = none.open(None).await.unwrap_err().to_string();
    assert!(refused.contains("does not offer"), "{refused}");
}

/// What a person does who reads the message.
fn trust_the_rejected(server: &Server, message: &str) {
    let rejected: Vec<PathBuf> = std::fs::read_dir(server.pki().join("rejected"))
        .expect("it works")
        .map(|entry| entry.expect("it works").path())
        .collect();
    let [file] = rejected.as_slice() else { panic!("{rejected:?}") };
    assert!(message.contains(&file.display().to_string()), "{message}");
    let thumbprints = message.split_whitespace().filter(|word| {
        let word = word.trim_matches(|c: char| !c.is_ascii_hexdigit());
        word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit())
    });
    assert_eq!(thumbprints.count(), 2, "{message}");
    std::fs::rename(file, server.pki().join("trusted").join(file.file_name().expect("it works")))
        .expect("it works");
}

#[tokio::test]
async fn without_safety_nothing_is_read_unless_it_is_said() {
    let server = Server::start(json!({}));
    let mut driver = server.candidate(&[COUNTER], "").driver();
    let refused = driver.open(None).await.unwrap_err().to_string();
    assert!(refused.contains("security = \"none\""), "{refused}");
}

#[tokio::test]
async fn a_server_that_does_not_know_us_says_so_and_what_to_do_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("client.der");
    let mut server = Server::start(json!({
        "cert_dir": dir.path(), "trust": trusted, "security": ["NoSecurity", "Aes256Sha256RsaPss_SignAndEncrypt"],
    }));
    let mut driver = server.candidate(&[COUNTER], "publishing_interval = \"50ms\"").driver();
    let message = driver.open(None).await.unwrap_err().to_string();
    trust_the_rejected(&server, &message);
    let refused = driver.open(None).await.unwrap_err();
    let text = refused.to_string();
    let own = server.pki().join("own/certificate.der");
    assert!(matches!(refused, DriverError::Denied(_)), "{refused:?}");
    assert_eq!(refused.quality(), Quality::stale(Reason::AccessDenied));
    assert!(text.contains(&own.display().to_string()) && text.contains("SHA-1"), "{text}");
    std::fs::copy(&own, &trusted).unwrap();
    driver.open(None).await.unwrap();
    round(driver.as_mut()).await;
    // A secured connection that is cut goes on with its subscriptions in a new session.
    server.ask(json!({"do": "cut"}));
    server.ask(json!({"do": "count", "number": 5}));
    let error = until_failure(driver.as_mut()).await;
    assert!(matches!(error, DriverError::NotConnected(_)), "{error}");
    driver.close().await;
    driver.open(None).await.unwrap();
    follow(driver.as_mut(), |read| read.last().and_then(int) == Some(5)).await;
    driver.close().await;
}

#[tokio::test]
async fn every_identity_logs_in_and_wrong_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let (password, wrong) = (dir.path().join("password"), dir.path().join("wrong"));
    std::fs::write(&password, "s3cret\n").unwrap();
    std::fs::write(&wrong, "guess").unwrap();
    let maker = Server::start(json!({}));
    // Another agent's certificate serves as a user's.
    drop(maker.candidate(&[COUNTER], "security = \"none\"").driver().open(None).await);
    let (cert, key) = (dir.path().join("user.der"), dir.path().join("user.pem"));
    std::fs::copy(maker.pki().join("own/certificate.der"), &cert).unwrap();
    std::fs::copy(maker.pki().join("own/private_key.pem"), &key).unwrap();
    let server = Server::start(json!({
        "cert_dir": dir.path(), "tokens": ["user", "certificate"], "user_cert": cert,
        "security": ["NoSecurity", "Basic256Sha256_Sign", "Aes256Sha256RsaPss_SignAndEncrypt"],
    }));
    let user = |file: &Path| format!("user = \"operator\"\npassword_file = \"{}\"", file.display());
    let certificate =
        format!("user_cert_file = \"{}\"\nuser_key_file = \"{}\"", cert.display(), key.display());
    let mut first = server.candidate(&[COUNTER], &user(&password)).driver();
    let message = first.open(None).await.unwrap_err().to_string();
    trust_the_rejected(&server, &message);
    for security in ["best", "Basic256Sha256/Sign", "none"] {
        for login in [user(&password), certificate.clone()] {
            if security == "none" && login == certificate {
                continue; // asyncua has no certificate to sign for there
            }
            let mut driver =
                server.candidate(&[COUNTER], &format!("security = \"{security}\"\n{login}")).driver();
            driver.open(None).await.unwrap_or_else(|error| panic!("{security} {login}: {error}"));
            assert_eq!(int(&round(driver.as_mut()).await[0]), Some(0));
            driver.close().await;
        }
        let mut driver =
            server.candidate(&[COUNTER], &format!("security = \"{security}\"\n{}", user(&wrong))).driver();
        let refused = driver.open(None).await.unwrap_err();
        assert!(matches!(refused, DriverError::Denied(_)), "{refused:?}");
        assert!(!refused.to_string().contains("guess"), "{refused}");
    }
    let mut anonymous = server.candidate(&[COUNTER], "").driver();
    let refused = anonymous.open(None).await.unwrap_err().to_string();
    assert!(refused.contains("UserName"), "{refused}");
}
