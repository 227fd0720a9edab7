use std::sync::Arc;

use tidewire_protocol::filter::Filter;

use super::*;
use crate::auth::Grant;

fn ann() -> Identity {
    Identity { subject: Some("ann".into()), ..Identity::default() }
}

fn granted(list: &[(&str, Action)], bearer: Identity) -> Identity {
    let grant = |&(pattern, action): &(&str, Action)| Grant {
        pattern: str::parse(pattern).unwrap(),
        actions: vec![action],
        rows: None,
    };
    Identity { grants: Some(list.iter().map(grant).collect()), ..bearer }
}

/// A token without a subject and without grants.
fn nameless() -> Identity {
    Identity { credential: Some(crate::auth::Credential::Word), ..Identity::default() }
}

fn rules(list: Vec<Namespace>, anonymous: bool) -> Namespaces {
    Namespaces::new(list, HistoryLimits::default(), anonymous)
}

/// What may be done, by the first letters of subscribe, publish, presence, track, history.
fn allowed(rules: &Namespaces, identity: &Identity, topic: &Topic) -> String {
    let letters = ['s', 'p', 'P', 't', 'h'];
    let judged = Action::ALL.into_iter().zip(letters);
    judged
        .map(|(action, letter)| match rules.check(identity, action, topic) {
            Ok(_) => letter,
            Err(refusal) => {
                let expected =
                    if identity.has_token() { Code::Forbidden } else { Code::Unauthorized };
                assert_eq!(refusal.code, expected, "{topic} {action:?}");
                '-'
            }
        })
        .collect()
}

/// Every kind of client against every kind of topic, every action.
#[test]
fn who_may_do_what_is_as_in_the_table() {
    let named = |pattern: &str| Namespace {
        subscribe: Some(Who::Anyone),
        publish: Some(Who::Authenticated),
        presence: Some(Who::Nobody),
        ..Namespace::of(pattern.parse().unwrap())
    };
    let list = ["named:*", "private:named:*", "table:named.*", "notify:named:*"];
    let list: Vec<_> = list.into_iter().map(named).collect();
    let (on, off) = (rules(list.clone(), true), rules(list, false));
    let grants = [
        ("named:1", Action::Publish),
        ("private:named:1", Action::Publish),
        ("table:named.a", Action::Publish),
        ("notify:named:1", Action::Publish),
        ("other", Action::Subscribe),
        ("private:other", Action::Subscribe),
        ("table:other.a", Action::Subscribe),
        ("notify:other", Action::Subscribe),
    ];
    let clients = [Identity::anonymous(), nameless(), granted(&grants, nameless()), ann()];
    for (topic, anonymous, expected) in [
        // No token; no subject and no grants; no subject, with grants; a subject.
        (Topic::application("named:1"), &on, ["s---h", "s---h", "sp--h", "sp--h"]),
        (Topic::application("named:1"), &off, ["-----", "-----", "-p---", "sp--h"]),
        (Topic::private("named:1"), &on, ["s---h", "s---h", "sp--h", "sp--h"]),
        (Topic::private("named:1"), &off, ["-----", "-----", "-p---", "sp--h"]),
        (Topic::table("named.a"), &on, ["s---h", "s---h", "sp--h", "sp--h"]),
        (Topic::table("named.a"), &off, ["-----", "-----", "-p---", "sp--h"]),
        (Topic::notify("named:1"), &on, ["s---h", "s---h", "sp--h", "sp--h"]),
        (Topic::notify("named:1"), &off, ["-----", "-----", "-p---", "sp--h"]),
        (Topic::application("other"), &on, ["spPth", "spPth", "spPth", "spPth"]),
        (Topic::application("other"), &off, ["-----", "-----", "s---h", "spPth"]),
        (Topic::private("other"), &on, ["-----", "-----", "s---h", "-----"]),
        (Topic::private("other"), &off, ["-----", "-----", "s---h", "-----"]),
        (Topic::table("other.a"), &on, ["-----", "-----", "s---h", "-----"]),
        (Topic::table("other.a"), &off, ["-----", "-----", "s---h", "-----"]),
        (Topic::notify("other"), &on, ["-----", "-----", "s---h", "-----"]),
        (Topic::notify("other"), &off, ["-----", "-----", "s---h", "-----"]),
    ] {
        let topic = topic.unwrap();
        let found = clients.each_ref().map(|client| allowed(anonymous, client, &topic));
        assert_eq!(found, expected, "{topic} anonymous {}", anonymous.anonymous);
        for client in &clients {
            // Changes of presence are judged as the topic that they are of.
            let presence = allowed(anonymous, client, &topic.presence());
            assert_eq!(presence, allowed(anonymous, client, &topic));
        }
    }
}

#[test]
fn each_right_is_decided_by_the_first_namespace_that_says_something_of_it() {
    let news = Namespace {
        subscribe: Some(Who::Anyone),
        events: Some(5),
        ..Namespace::of("news:*".parse().unwrap())
    };
    let all = Namespace {
        subscribe: Some(Who::Nobody),
        publish: Some(Who::Nobody),
        events: Some(7),
        age: Some(Duration::from_secs(9)),
        ..Namespace::of("*".parse().unwrap())
    };
    let rules = rules(vec![news, all], true);
    let news = Topic::application("news:1").unwrap();
    assert_eq!(allowed(&rules, &ann(), &news), "s-Pth");
    let other = Topic::application("other").unwrap();
    assert_eq!(allowed(&rules, &ann(), &other), "--Pt-");
    let default = HistoryLimits::default();
    let age = Duration::from_secs(9);
    assert_eq!(rules.history(&news), HistoryLimits { events: 5, age, ..default });
    assert_eq!(rules.history(&other), HistoryLimits { events: 7, age, ..default });
}

#[test]
fn a_namespace_that_says_how_much_is_kept_gives_nobody_a_right() {
    let kept =
        |pattern: &str| Namespace { events: Some(5), ..Namespace::of(pattern.parse().unwrap()) };
    let list = ["*", "private:*", "table:*", "notify:*"].map(kept).to_vec();
    for anonymous in [true, false] {
        let (with, without) = (rules(list.clone(), anonymous), rules(Vec::new(), anonymous));
        for topic in
            [Topic::application("a"), Topic::private("a"), Topic::table("a.b"), Topic::notify("a")]
        {
            let topic = topic.unwrap();
            for client in [Identity::anonymous(), nameless(), ann()] {
                let found = allowed(&with, &client, &topic);
                assert_eq!(found, allowed(&without, &client, &topic), "{topic}");
            }
        }
    }
}

#[test]
fn a_rule_for_everything_is_for_application_topics_alone() {
    let open = Namespace {
        subscribe: Some(Who::Anyone),
        publish: Some(Who::Anyone),
        presence: Some(Who::Anyone),
        ..Namespace::of("*".parse().unwrap())
    };
    let rules = rules(vec![open], true);
    let everything = Action::ALL.map(|action| ("*", action));
    for client in [Identity::anonymous(), ann(), granted(&everything, ann())] {
        assert_eq!(allowed(&rules, &client, &Topic::application("a").unwrap()), "spPth");
        for topic in [Topic::private("a"), Topic::table("a.b"), Topic::notify("a")] {
            assert_eq!(allowed(&rules, &client, &topic.unwrap()), "-----");
        }
    }
}

#[test]
fn the_servers_own_channels_are_nobodys() {
    let everything = Action::ALL.map(|action| ("notify:*", action));
    let open = Namespace {
        subscribe: Some(Who::Anyone),
        publish: Some(Who::Anyone),
        ..Namespace::of("notify:*".parse().unwrap())
    };
    let rules = rules(vec![open], true);
    let credential = Some(crate::auth::Credential::Word);
    let admin = Identity { superuser: true, credential, ..ann() };
    for name in ["tidewire", "tidewire_outbox", "tidewire_self_test_1"] {
        let topic = Topic::notify(name).unwrap();
        for client in [granted(&everything, ann()), admin.clone()] {
            assert_eq!(allowed(&rules, &client, &topic), "-----", "{name}");
        }
        assert_eq!(allowed(&rules, &Identity::everything(), &topic), "spPth", "{name}");
    }
    let ours = granted(&everything, ann());
    assert_eq!(allowed(&rules, &ours, &Topic::notify("tidewires").unwrap()), "spPth");
}

#[test]
fn a_topic_of_each_users_own_is_no_others() {
    for kind in ["private:", ""] {
        nobody_else_has_it(kind);
    }
}

fn nobody_else_has_it(kind: &str) {
    let own = Namespace {
        subscribe: Some(Who::Authenticated),
        publish: Some(Who::Authenticated),
        presence: Some(Who::Authenticated),
        events: Some(3),
        ..Namespace::of(format!("{kind}user:{{sub}}:*").parse().unwrap())
    };
    let rules = rules(vec![own], true);
    let topic = if kind.is_empty() { Topic::application } else { Topic::private };
    let inbox = |name: &str| topic(&format!("user:{name}:inbox")).unwrap();
    assert_eq!(allowed(&rules, &ann(), &inbox("ann")), "spPth");
    assert_eq!(rules.history(&inbox("ann")).events, 3);
    for hostile in ["bob", "*", "ann:inbox", "ann:", "", "{sub}", "an", "ann*", "private:user:ann"]
    {
        let hostile = Identity { subject: Some(hostile.into()), ..Identity::default() };
        assert_eq!(allowed(&rules, &hostile, &inbox("ann")), "-----", "{hostile:?}");
    }
    for nobody in [Identity::anonymous(), nameless(), ann()] {
        for name in ["bob", "{sub}", "None"] {
            assert_eq!(allowed(&rules, &nobody, &inbox(name)), "-----");
        }
    }
}

#[test]
fn a_right_may_be_about_some_rows() {
    let filter = |text: &str| Some(Arc::new(Filter::parse(text).unwrap()));
    let rule = |text: &str| Some(text.parse::<RowRule>().unwrap());
    let own = Namespace {
        subscribe: Some(Who::Authenticated),
        rows: rule("customer_id=eq.{sub}"),
        ..Namespace::of("table:public.orders".parse().unwrap())
    };
    let rules = rules(vec![own], true);
    let orders = Topic::table("public.orders").unwrap();
    let allowed = |client: &Identity, action| rules.check(client, action, &orders);
    for action in [Action::Subscribe, Action::History] {
        assert_eq!(allowed(&ann(), action).unwrap().rows, filter("customer_id=eq.ann"));
        assert!(allowed(&nameless(), action).is_err());
        assert!(allowed(&Identity::anonymous(), action).is_err());
        assert_eq!(allowed(&Identity::everything(), action), Ok(Allowed::EVERYTHING));
    }
    let grant = |rows| Grant {
        pattern: "table:public.*".parse().unwrap(),
        actions: vec![Action::Subscribe],
        rows,
    };
    let with =
        |list: Vec<Grant>, bearer: Identity| Identity { grants: Some(list.into()), ..bearer };
    // Rights of one client add up.
    let shared = with(vec![grant(rule("shared=is.true"))], ann());
    let both = Filter::any_of(vec![
        Filter::parse("shared=is.true").unwrap(),
        Filter::parse("customer_id=eq.ann").unwrap(),
    ]);
    assert_eq!(allowed(&shared, Action::History).unwrap().rows, Some(Arc::new(both)));
    let all = with(vec![grant(rule("shared=is.true")), grant(None)], ann());
    assert_eq!(allowed(&all, Action::Subscribe), Ok(Allowed::EVERYTHING));
    // A rule that names the subject is no right for who has none.
    let nobodys = with(vec![grant(rule("customer_id=eq.{sub}"))], nameless());
    assert!(allowed(&nobodys, Action::Subscribe).is_err());
    let public = with(vec![grant(rule("shared=is.true"))], nameless());
    assert_eq!(allowed(&public, Action::Subscribe).unwrap().rows, filter("shared=is.true"));
}

#[test]
fn a_refusal_says_in_words_what_is_refused_and_what_is_missing() {
    let (topic, private) = (Topic::application("a").unwrap(), Topic::private("a").unwrap());
    let rules = Namespaces::default();
    for (client, action, topic, words) in [
        (ann(), Action::Presence, &private, "this token does not allow to see who is here"),
        (ann(), Action::Track, &private, "this token does not allow to be seen here"),
        (ann(), Action::History, &private, "this token does not allow to read the history here"),
        (Identity::anonymous(), Action::Publish, &topic, "a token is needed to publish here"),
        (
            nameless(),
            Action::Subscribe,
            &topic,
            "this token has no subject (the claim \"sub\"), so it is good for its grants alone, \
             and none of them allows to subscribe here",
        ),
        (nameless(), Action::Subscribe, &private, "this token does not allow to subscribe here"),
    ] {
        assert_eq!(rules.check(&client, action, topic).unwrap_err().message, words);
    }
}
