//! Fathom's API pages, lists and single meetings.

use serde_json::{Value, json};

use super::{gzip, ids_and_refusals, read, read_one, said};

fn meeting(recording_id: i64) -> Value {
    json!({
        "title": "Review \"items\": [{]}",
        "meeting_title": "Calendar",
        "recording_id": recording_id,
        "url": "https://fathom.example/calls/1",
        "created_at": "2025-03-01T17:01:30Z",
        "recording_start_time": "2025-03-01T16:01:12Z",
        "default_summary": {"markdown_formatted": "## items\n\"items\":[1,2]"},
        "action_items": null,
        "calendar_invitees": [{"name": "Ann", "email": "ann@example.com", "is_external": false}],
        "transcript": [
            {"speaker": {"display_name": "Ann", "matched_calendar_invitee_email": "ann@example.com"},
             "text": "Let us \\ begin: {\"items\": [", "timestamp": "00:00:04"},
            {"speaker": {"display_name": null, "matched_calendar_invitee_email": null},
             "text": null, "timestamp": "00:00:09"}
        ],
    })
}

fn page(ids: &[i64]) -> Value {
    let items: Vec<Value> = ids.iter().map(|id| meeting(*id)).collect();
    json!({"limit": 10, "next_cursor": "eyJwYWdlX251bSI6Mn0=", "items": items})
}

#[test]
fn every_shape_of_json_gives_the_same_meetings_however_it_is_written() {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let meetings = [meeting(1), meeting(2), meeting(3)];
    let items_last = r#"{"next_cursor":null,"limit":3,"items":[M],"more":{"items":[{"a":"]"}]}}"#;
    let list: Vec<String> = meetings.iter().map(Value::to_string).collect();
    let files = [
        ("lines", list.join("\n")),
        ("lines and blank lines", format!("\n{}\r\n\n", list.join("\r\n \n"))),
        ("page", page(&[1, 2, 3]).to_string()),
        ("pretty page", pretty(&page(&[1, 2, 3]))),
        ("page with items first", json!({"items": meetings, "limit": 3}).to_string()),
        ("page with something behind", items_last.replace('M', &list.join(","))),
        ("meetings on lines of a page", items_last.replace('M', &list.join(",\n"))),
        ("list", Value::from(meetings.to_vec()).to_string()),
        ("pretty list", pretty(&Value::from(meetings.to_vec()))),
        ("pretty meetings, one after the other", meetings.each_ref().map(pretty).join("\n")),
        ("meetings without a break", list.concat()),
        ("pages, one after the other", format!("{}{}", page(&[1, 2]), page(&[3]))),
        ("pages, one a line", format!("{}\n{}\n{}", page(&[1]), page(&[]), page(&[2, 3]))),
        ("a page and a meeting", format!("{}\n{}", page(&[1, 2]), pretty(&meetings[2]))),
    ];
    let expected = read_one("one", list[0].clone()).recording;
    assert_eq!(expected.title.as_deref(), Some("Review \"items\": [{]}"));
    assert_eq!(expected.created_at, "2025-03-01T17:01:30Z".parse().ok());
    assert_eq!(expected.segments[0].speaker_email.as_deref(), Some("ann@example.com"));
    for (what, content) in files {
        for content in [content.clone().into_bytes(), gzip(&content)] {
            let all = read(what, content);
            assert_eq!(all.first().unwrap().as_ref().unwrap().recording, expected, "{what}");
            assert_eq!(ids_and_refusals(all), (vec![1, 2, 3], vec![]), "{what}");
        }
    }
}

#[test]
fn a_single_meeting_is_one_recording_over_many_lines_too() {
    let compact = read_one("meeting.json", meeting(7).to_string());
    let pretty = read_one("meeting.json", serde_json::to_string_pretty(&meeting(7)).unwrap());
    assert_eq!(compact.recording, pretty.recording);
    assert_eq!(said(&pretty), ["00:00:04 Ann: Let us \\ begin: {\"items\": [", "00:00:09 ?: "]);
}

#[test]
fn a_bad_item_is_named_by_its_place_and_loses_nothing_of_the_others() {
    let mut items = vec![meeting(1), meeting(2), json!(17), json!("]"), meeting(5), meeting(6)];
    items[1]["recording_id"] = json!("two");
    items[4]["transcript"] = Value::Null;
    let (ids, refused) = ids_and_refusals(read("page.json", json!({"items": items}).to_string()));
    assert_eq!(ids, [1, 6]);
    let [of_2, of_3, of_4, of_5] = refused.try_into().unwrap();
    assert!(of_2.starts_with("item 2: not a recording: a field is missing"), "{of_2}");
    assert!(of_3.starts_with("item 3: not a recording"), "{of_3}");
    assert!(of_4.starts_with("item 4: not a recording"), "{of_4}");
    assert!(of_5.starts_with("item 5: recording 5 has no transcript: ask Fathom with"), "{of_5}");
    let pages = format!("{}\n{}", page(&[1]), json!({"items": [meeting(2), {}]}));
    let (ids, refused) = ids_and_refusals(read("pages.json", pages));
    assert_eq!((ids.len(), refused.len()), (2, 1));
    assert!(refused[0].starts_with("page 2, item 2: not a recording"), "{refused:?}");
}

#[test]
fn a_title_or_a_date_that_is_missing_is_taken_from_the_next_best() {
    let mut call = meeting(1);
    call["title"] = Value::Null;
    call.as_object_mut().unwrap().remove("created_at");
    let recording = read_one("call.json", call.to_string()).recording;
    assert_eq!(recording.title.as_deref(), Some("Calendar"));
    assert_eq!(recording.created_at, "2025-03-01T16:01:12Z".parse().ok());
}

#[test]
fn names_of_ours_are_not_for_files_that_name_their_recordings() {
    use embedding_recovery::import::Origin;
    let origin = Origin { title: Some("Mine".into()), ..Origin::from("page.json") };
    let refused = super::open(origin, page(&[1]).to_string()).err().unwrap().to_string();
    assert!(refused.starts_with("it names its recordings itself: --recording-id"), "{refused}");
}
