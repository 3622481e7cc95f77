use super::leaves_no_trace;

#[test]
fn page_sizes_that_are_no_numbers_are_refused_and_others_are_bounded() {
    leaves_no_trace(&[], |server| {
        let lists = [("/v2/_catalog", "repositories", "team/app"), ("/v2/team/app/tags/list", "tags", "latest")];
        for (path, field, only) in lists {
            for bad in ["-1", "abc", "", "1.5", "+1", "%201", "0x10", "18446744073709551616"] {
                server.get(&format!("{path}?n={bad}")).refused(400, "UNSUPPORTED", "n=");
            }
            server.get(&format!("{path}?last=%ff")).refused(400, "UNSUPPORTED", "%ff");
            for good in ["n=1", "n=10001", "n=1000000000", "n=18446744073709551615", "n=5&last=", "last=a", "x=y", ""] {
                let answer = server.get(&format!("{path}?{good}")).is(200);
                assert_eq!(answer.json()[field], serde_json::json!([only]), "{good}");
                assert_eq!(answer.header("link"), None, "{good}");
            }
            let answer = server.get(&format!("{path}?n=0")).is(200);
            assert_eq!(answer.json()[field], serde_json::json!([]));
            assert_eq!(answer.header("link"), None);
            for past in ["last=zzz", "last=%00zz", "last=zzz/../..", "n=0&last=zzz"] {
                if past.contains("%00") {
                    // Sorts before every name, so nothing is left out.
                    assert_eq!(server.get(&format!("{path}?{past}")).is(200).json()[field][0], only);
                } else {
                    assert_eq!(server.get(&format!("{path}?{past}")).is(200).json()[field], serde_json::json!([]));
                }
            }
        }
        for n in ["", "?n=0", "?n=1"] {
            let path = format!("/v2/nobody/here/tags/list{n}");
            server.get(&path).refused(404, "NAME_UNKNOWN", "nobody/here");
        }
    });
}
