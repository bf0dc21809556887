//! What is said of passwords, and how often they are looked at.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use pushprox_testkit::wait::{SOON, until};

use super::*;

fn hash(password: &str) -> PasswordHash {
    bcrypt::hash(password, 4).unwrap().try_into().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes())
}

#[tokio::test]
async fn the_right_password_of_the_right_user_is_right() {
    let users = Users::new([("a".to_owned(), hash("one")), ("b".to_owned(), hash("two"))]);
    let passwords = Passwords::new();
    for _ in 0..2 {
        for (user, password, right) in [
            ("a", "one", true),
            ("a", "two", false),
            ("b", "two", true),
            ("c", "one", false),
            ("", "", false),
            ("A", "one", false),
        ] {
            let verdict = passwords.verify(&users, user, &secret(password)).await;
            assert_eq!(verdict, Ok(right), "{user} {password}");
        }
    }
    assert_eq!(passwords.verdicts.right.lock().len(), 2);
    assert_eq!(passwords.verdicts.wrong.lock().len(), 4);
    assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_unknown_user_is_looked_at_whatever_another_has_shown() {
    let users = Users::new([("a".to_owned(), hash("right"))]);
    let passwords = Passwords::new();
    for (looks, user) in ["x", "y", "a"].into_iter().enumerate() {
        let verdict = passwords.verify(&users, user, &secret("guess")).await;
        assert_eq!(verdict, Ok(false));
        assert_eq!(passwords.verdicts.wrong.lock().len(), looks + 1, "{user}");
    }
}

#[tokio::test]
async fn one_look_serves_all_who_wait_with_the_same() {
    let users = Users::new([("a".to_owned(), hash("one")), ("b".to_owned(), hash("two"))]);
    let passwords = Passwords::new();
    let shown = secret("two");
    let turn = Arc::clone(&passwords.one_at_a_time);
    let turn = turn.acquire_owned().await.unwrap();
    let mut waiting = pin!(passwords.verify(&users, "a", &shown));
    assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
    // Whoever had the turn before found it right, which it is not: nobody looks at it again.
    let hash = users.hash("a").unwrap();
    let asked = passwords.digest("a", hash, &shown).unwrap();
    passwords.verdicts.add(asked, true);
    drop(turn);
    assert_eq!(waiting.await, Ok(true));
}

#[tokio::test]
async fn a_look_that_nobody_waits_for_is_not_in_vain() {
    let users = Users::new([("a".to_owned(), hash("one"))]);
    let passwords = Passwords::new();
    let shown = secret("one");
    {
        let mut waiting = pin!(passwords.verify(&users, "a", &shown));
        assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
    }
    until("the verdict", SOON, async || {
        (passwords.verdicts.right.lock().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_verdict_goes_with_its_hash() {
    let passwords = Passwords::new();
    let before = Users::new([("a".to_owned(), hash("old"))]);
    let after = Users::new([("a".to_owned(), hash("new"))]);
    assert_eq!(
        passwords.verify(&before, "a", &secret("old")).await,
        Ok(true)
    );
    assert_eq!(
        passwords.verify(&after, "a", &secret("old")).await,
        Ok(false)
    );
    assert_eq!(
        passwords.verify(&after, "a", &secret("new")).await,
        Ok(true)
    );
}

#[tokio::test]
async fn wrong_passwords_are_forgotten_before_right_ones() {
    let users = Users::new([("a".to_owned(), hash("right"))]);
    let passwords = Passwords::new();
    assert_eq!(
        passwords.verify(&users, "a", &secret("right")).await,
        Ok(true)
    );
    for guess in 0..MAX_WRONG + 20 {
        let guess = secret(&format!("guess {guess}"));
        assert_eq!(passwords.verify(&users, "a", &guess).await, Ok(false));
    }
    assert_eq!(passwords.verdicts.wrong.lock().len(), MAX_WRONG);
    assert_eq!(passwords.verdicts.right.lock().len(), 1);
}

#[tokio::test]
async fn passwords_are_bytes_of_which_72_count() {
    let long = "x".repeat(72);
    let users = [
        ("", ""),
        ("ü", "größe \u{1f511}"),
        ("nul", "a\0b"),
        ("long", &long),
    ];
    let users = Users::new(users.map(|(user, password)| (user.to_owned(), hash(password))));
    let passwords = Passwords::new();
    for (user, password, right) in [
        ("", "", true),
        ("", " ", false),
        ("ü", "größe \u{1f511}", true),
        ("u\u{308}", "größe \u{1f511}", false),
        ("ü", "", false),
        ("nul", "a\0b", true),
        ("nul", "a", false),
        ("nul", "a\0c", false),
        ("long", &long, true),
        ("long", &format!("{long}y"), true),
        ("long", &"x".repeat(71), false),
    ] {
        let verdict = passwords.verify(&users, user, &secret(password)).await;
        assert_eq!(verdict, Ok(right), "{user:?} {password:?}");
    }
}

#[test]
fn right_passwords_of_many_users_are_all_remembered() {
    let passwords = Passwords::new();
    let digest = |number: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_ne_bytes());
        digest
    };
    let mut right = passwords.verdicts.right.lock();
    for number in 0..MAX_RIGHT {
        right.add(digest(number));
        right.add(digest(number));
    }
    assert!((0..MAX_RIGHT).all(|number| right.has(&digest(number))));
    right.add(digest(MAX_RIGHT));
    assert!(!right.has(&digest(0)) && right.has(&digest(1)));
    assert_eq!(right.len(), MAX_RIGHT);
}

#[test]
fn unknown_users_cost_as_much_as_the_costliest() {
    let costly: PasswordHash = bcrypt::hash("x", 6).unwrap().try_into().unwrap();
    let users = Users::new([("a".to_owned(), hash("x")), ("b".to_owned(), costly)]);
    assert_eq!(users.stand_in.cost(), 6);
    assert!(PasswordHash::try_from(users.stand_in.0.to_string()).is_ok());
    assert!(!bcrypt::verify("", &users.stand_in.0).unwrap());
}

#[test]
fn hashes_of_the_three_versions_are_taken_and_nothing_else() {
    let rest = "10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
    for version in ["$2a$", "$2b$", "$2y$"] {
        assert!(
            PasswordHash::try_from(format!("{version}{rest}")).is_ok(),
            "{version}"
        );
    }
    for wrong in [
        format!("$2x${rest}"),
        format!("$1$${rest}"),
        format!("$2y${rest}x"),
        "$2y$99$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG".to_owned(),
        "$2y$10$short".to_owned(),
        "password".to_owned(),
        String::new(),
    ] {
        assert_eq!(PasswordHash::try_from(wrong), Err(NoHash));
    }
    assert_eq!(format!("{:?}", hash("x")), "PasswordHash(hidden)");
}
