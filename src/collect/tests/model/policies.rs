//! Policies that take nothing away before the end of all days, so that what was promised stays promised: what is put in order for
//! them, and their reviews, meet everything else that happens. What they take is tried in `state/tests/policies.rs`.

use super::*;
use crate::policy::{DURATION_MAX_MS, Policy, TagPatterns};

impl World {
    pub(super) fn policy(&mut self) {
        let name = ["one", "two", "three"][self.random.usize(..3)];
        let request = if self.random.u8(..4) == 0 {
            Request::RemovePolicy { name: name.parse().unwrap(), from_settings: true }
        } else {
            Request::SetPolicy { policy: Box::new(self.any_policy(name)), from_settings: true, confirmed: true }
        };
        let done = self.registry().store().commit(request);
        self.log("policy", name, (), &done);
        match done {
            Ok(_) => self.saw("policy"),
            Err(StoreError::Refused(Refusal::PatternTaken { .. } | Refusal::PolicyUnknown(_))) => {}
            Err(error) => self.cut_short(&error, |_| ()),
        }
    }

    fn any_policy(&mut self, name: &str) -> Policy {
        let pattern = ["**", "a/*", "a/x", "b/**", "plain"][self.random.usize(..5)];
        let mut policy = Policy::new(name.parse().unwrap(), pattern.parse().unwrap());
        let tags = ["*", "!edge", "latest"][self.random.usize(..3)].to_owned();
        policy.tag_pattern = TagPatterns::new("tag_pattern", vec![tags]).unwrap();
        policy.keep_newest = [None, Some(1), Some(2)][self.random.usize(..3)];
        policy.older_than_ms = Some(DURATION_MAX_MS);
        policy.not_pulled_for_ms = self.random.bool().then_some(DURATION_MAX_MS);
        policy.never_tagged_for_ms = self.random.bool().then_some(DURATION_MAX_MS);
        policy.held_for_ms = self.random.bool().then_some(WINDOW_MS);
        policy
    }
}
