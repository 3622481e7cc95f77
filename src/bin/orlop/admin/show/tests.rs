//! Tables from canned answers.
