//! Who may use the control API.

use serde::{Deserialize, Serialize};

use super::{KeyPath, Problem, ProblemKind};

/// Who may use the control API. Root and the agent's own user may do everything, whatever is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Groups of the system whose members may ask and change. A group that there is not gives nobody any right.
    pub operator_groups: Vec<String>,
    /// Groups of the system whose members may ask.
    pub reader_groups: Vec<String>,
}

impl Access {
    /// Whether rights go by groups. Otherwise they go by the permissions of the socket.
    #[must_use]
    pub fn is_by_group(&self) -> bool {
        !self.operator_groups.is_empty() || !self.reader_groups.is_empty()
    }

    /// What cannot be the name of a group, and what is listed twice.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let lists = [("operator_groups", &self.operator_groups), ("reader_groups", &self.reader_groups)];
        let of_list = |(key, groups): (&str, &Vec<String>)| {
            let key = KeyPath::from(["api", key]);
            let problem = |(place, name): (usize, &String)| {
                let kind = if groups[..place].contains(name) {
                    ProblemKind::DuplicateGroup(name.clone())
                } else if !is_group_name(name) {
                    ProblemKind::GroupName(name.clone())
                } else {
                    return None;
                };
                Some(Problem { line: None, key: key.index(place), kind })
            };
            groups.iter().enumerate().filter_map(problem).collect::<Vec<_>>()
        };
        lists.into_iter().flat_map(of_list).collect()
    }
}

/// Whether a line of /etc/group can begin with it.
fn is_group_name(name: &str) -> bool {
    let forbidden = |c: char| c == ':' || c == ',' || c.is_whitespace() || c.is_control();
    !name.is_empty() && !name.contains(forbidden)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn problems(text: &str) -> Vec<String> {
        Config::from_toml(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rights_go_by_groups_as_soon_as_there_is_one() {
        assert!(!Config::from_toml("").unwrap().access.is_by_group());
        for text in ["[api]\noperator_groups = ['noc']", "[api]\nreader_groups = ['staff']"] {
            assert!(Config::from_toml(text).unwrap().access.is_by_group(), "{text}");
        }
    }

    #[test]
    fn groups_have_names_and_are_listed_once() {
        assert_eq!(
            problems("[api]\noperator_groups = ['noc', '', 'noc']\nreader_groups = ['noc', 'a:b', 'a b', \"a\\n\"]"),
            [
                "line 2: api.operator_groups[1]: `` cannot be the name of a group",
                "line 2: api.operator_groups[2]: `noc` is listed twice, remove one",
                "line 3: api.reader_groups[1]: `a:b` cannot be the name of a group",
                "line 3: api.reader_groups[2]: `a b` cannot be the name of a group",
                "line 3: api.reader_groups[3]: `a\\n` cannot be the name of a group",
            ]
        );
    }
}
