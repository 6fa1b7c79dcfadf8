//! CSV files, and what becomes of their rows. JSON ones are tested where they are read.

use super::*;
use crate::mac::Mac;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn read(text: &str) -> (Inventory, Vec<String>) {
    let (inventory, problems) = Inventory::from_csv(text.as_bytes()).unwrap();
    (inventory, problems.iter().map(RowProblem::to_string).collect())
}

fn id(machine: Option<&Machine>) -> Option<&str> {
    machine.map(|machine| machine.server_id.as_str())
}

#[test]
fn names_by_mac_then_by_port() {
    let (inventory, problems) = read(
        "mac,server_id,owner,name,vlans,interface
         02:00:00:00:00:01; 0200.0000.0002,em-1,alice,web,,
         ,em-2,,,100.20,eth0
         ,em-3,,,,eth0
        ",
    );
    assert!(problems.is_empty(), "{problems:?}");
    let web = Machine {
        server_id: "em-1".into(),
        name: Some("web".into()),
        owner: Some("alice".into()),
        ..Machine::default()
    };
    assert_eq!(inventory.machine("eth9", &[], Some(MAC)), Some(&web));
    assert_eq!(inventory.machine("eth0", &[100, 20], Some(Mac([2, 0, 0, 0, 0, 2]))), Some(&web), "MAC wins");
    assert_eq!(id(inventory.machine("eth0", &[100, 20], Some(Mac([2, 0, 0, 0, 0, 3])))), Some("em-2"));
    assert_eq!(id(inventory.machine("eth0", &[100, 20], None)), Some("em-2"));
    assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-3"));
    assert_eq!(inventory.machine("eth0", &[100], None), None);
    assert_eq!(inventory.machine("eth1", &[], None), None);
}

#[test]
fn bad_rows_are_listed_with_their_line_and_the_rest_counts() {
    let (inventory, problems) = read(
        "server_id,interface,vlans,mac,rack\n\
         em-1,eth0,4095,,\n\
         ,eth0,,,\n\
         em-3,,,,\n\
         em-4,,100,,\n\
         em-5,,,02:00:00:00:00:01 nonsense,\n\
         em-6,,,ff:ff:ff:ff:ff:ff,\n\
         em-7,eth0\n\
         # a comment\n\
         em-8,eth0,1.2.3,,\n\
         em-9,eth0,,,r1\n",
    );
    let starts = [
        "line 1: column `rack` is ignored",
        "line 2: `4095` is not a VLAN stack",
        "line 3: server_id is empty",
        "line 4: there is neither",
        "line 5: there are vlans without",
        "line 6: `nonsense` is not a MAC",
        "line 7: ff:ff:ff:ff:ff:ff cannot",
        "line 8: there are 2 fields, the header has 5",
        "line 10: `1.2.3` is not a VLAN stack",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
    assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-9"));
    assert_eq!(inventory.machine("", &[], Some(MAC)), None, "a bad row is skipped as a whole");
}

#[test]
fn the_first_of_two_owners_wins() {
    let (inventory, problems) = read(
        "server_id,interface,mac\n\
         em-1,eth0,02:00:00:00:00:01\n\
         em-2,eth0,02:00:00:00:00:01 02:00:00:00:00:02\n\
         em-1,eth0,02:00:00:00:00:01\n\
         em-3,eth1,\n\
         em-4,eth1,\n",
    );
    assert_eq!(
        problems,
        [
            "line 3: 02:00:00:00:00:01 is em-1's already, by an earlier row",
            "line 6: port eth1 is em-3's already, by an earlier row",
        ],
        "the same machine in two rows is no contradiction"
    );
    assert_eq!(id(inventory.machine("eth0", &[], Some(MAC))), Some("em-1"));
    assert_eq!(id(inventory.machine("eth0", &[], Some(Mac([2, 0, 0, 0, 0, 2])))), Some("em-2"));
    assert_eq!(id(inventory.machine("eth1", &[], None)), Some("em-3"));
}

#[test]
fn machines_that_share_a_port_do_not_answer_for_each_other() {
    let (inventory, problems) = read(
        "server_id,interface,mac\n\
         em-1,eth0,02:00:00:00:00:01\n\
         em-2,eth0,02:00:00:00:00:02\n\
         em-3,,02:00:00:00:00:03\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    let machine = |interface, last| id(inventory.machine(interface, &[], Some(Mac([2, 0, 0, 0, 0, last]))));
    assert_eq!([1, 2, 3].map(|last| machine("eth0", last)), [Some("em-1"), Some("em-2"), Some("em-3")]);
    assert_eq!([1, 2, 3].map(|last| machine("eth1", last)), [None, None, Some("em-3")], "only where it is said to be");
    assert_eq!(machine("eth0", 9), None, "a stranger on a port of others");
    assert_eq!(id(inventory.machine("eth0", &[], None)), None, "the port is nobody's");
}

#[test]
fn an_empty_file_knows_nobody() {
    for text in ["", "\n\n", "server_id,mac\n"] {
        assert_eq!(read(text), (Inventory::default(), vec![]), "{text:?}");
    }
}

#[test]
fn without_a_usable_header_there_is_no_inventory() {
    let problem = |text: &str| Inventory::from_csv(text.as_bytes()).unwrap_err();
    assert_eq!(problem("em-1,eth0,02:00:00:00:00:01\n"), HeaderProblem::NoServerId);
    assert_eq!(problem("server_id,mac,MAC\n"), HeaderProblem::Twice("mac".into()));
}

#[test]
fn lines_are_counted_over_whatever_is_skipped() {
    let text = "server_id,name,interface\r\n# a #comment, with a comma\r\n\r\n,,\r\nem-1,\"two\r\nlines # here\",eth0\r\n,,eth1";
    let (inventory, problems) = read(text);
    assert_eq!(problems, ["line 7: server_id is empty"]);
    assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-1"));
}

#[test]
fn spreadsheets_are_understood() {
    let (inventory, problems) = read("\u{feff}Server_ID,Name,Interface\r\n\"em-1\",\"a, b\",eth0\r\n");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(inventory.machine("eth0", &[], None).unwrap().name.as_deref(), Some("a, b"));
}

#[test]
fn a_row_that_is_not_text_is_skipped() {
    let (inventory, problems) = Inventory::from_csv(b"server_id,interface\n\xff,eth0\nem-2,eth0\n").unwrap();
    assert_eq!(problems.iter().map(RowProblem::to_string).collect::<Vec<_>>(), ["line 2: the row is not UTF-8 text"]);
    assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-2"));
}

#[test]
fn files_are_read_or_the_error_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inventory.csv");
    assert!(Inventory::load(&file).unwrap_err().to_string().contains("inventory.csv"));
    fs::write(&file, "server_id,interface\nem-1,eth0\n").unwrap();
    let (inventory, problems) = Inventory::load(&file).unwrap();
    assert!(problems.is_empty());
    assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-1"));
    fs::write(&file, "name\n").unwrap();
    let error = Inventory::load(&file).unwrap_err();
    assert!(error.to_string().contains("inventory.csv is not valid: there is no column server_id"), "{error}");
}

#[test]
fn rows_with_one_id_are_one_machine_and_the_first_of_two_contradictions_counts() {
    let (inventory, problems) = read(
        "server_id,interface,mac,name,zone,class,protected\n\
         em-1,eth0,,web,,metal,\n\
         em-1,eth1,,,par1,metal,yes\n\
         em-1,,02:00:00:00:00:01,db,par2,vm,\n",
    );
    assert_eq!(
        problems,
        [
            "line 4: name `db` contradicts an earlier row of em-1, which says `web` and counts",
            "line 4: zone `par2` contradicts an earlier row of em-1, which says `par1` and counts",
            "line 4: class `vm` contradicts an earlier row of em-1, which says `metal` and counts",
        ]
    );
    let machine = Machine {
        server_id: "em-1".into(),
        name: Some("web".into()),
        owner: None,
        zone: Some("par1".into()),
        class: Some("metal".into()),
        protected: true,
    };
    assert_eq!(inventory.machines(), 1);
    assert_eq!(inventory.machine("eth0", &[], None), Some(&machine));
    assert_eq!(inventory.machine("eth9", &[], Some(MAC)), Some(&machine));
    assert_eq!(inventory.class_of("eth1", &[]), Some("metal"));
    assert_eq!(inventory.class_of("eth9", &[]), None);
}

#[test]
fn each_port_and_mac_has_its_own_switch_port() {
    let (inventory, problems) = read(
        "server_id,interface,mac,switch,switch_port\n\
         em-1,tap1,,sw-a,7\n\
         em-1,tap2,,sw-b,8\n\
         em-1,,02:00:00:00:00:01,,\n\
         em-1,,02:00:00:00:00:02,sw-c,\n\
         em-1,tap1,,sw-a,9\n\
         em-1,,02:00:00:00:00:02 02:00:00:00:00:03,,10\n",
    );
    assert_eq!(problems, ["line 6: switch_port `9` contradicts an earlier row of em-1, which says `7` and counts"]);
    let plugged = |interface, last: Option<u8>| {
        let found = inventory.find(interface, &[], last.map(|last| Mac([2, 0, 0, 0, 0, last]))).unwrap();
        (found.switch, found.switch_port)
    };
    assert_eq!(plugged("tap1", None), (Some("sw-a"), Some("7")));
    assert_eq!(plugged("tap2", None), (Some("sw-b"), Some("8")));
    assert_eq!(plugged("tap2", Some(1)), (Some("sw-b"), Some("8")), "that of the port it is seen on");
    assert_eq!(plugged("eth0", Some(1)), (None, None), "not that of another port");
    assert_eq!(plugged("tap1", Some(2)), (Some("sw-c"), Some("10")), "its own");
    assert_eq!(plugged("eth0", Some(3)), (None, Some("10")), "and not that of the other MAC in its row");
}

#[test]
fn who_may_be_protected_is() {
    let (inventory, problems) = read(
        "server_id,interface,vlans,protected\n\
         em-1,eth1,,YES\n\
         em-2,eth2,,maybe\n\
         em-3,eth3,,no\n\
         em-4,eth4,,\n\
         em-4,eth5,9999,true\n\
         em-6,eth6,,False\n\
         em-6,eth6,,1\n",
    );
    assert_eq!(
        problems,
        [
            "line 3: protected is `maybe`, write yes or no; until then em-2 counts as protected",
            "line 6: `9999` is not a VLAN stack, write 100, or 100.20 with the outer id first",
            "line 6: this row was to protect em-4, and protects none of its ports and MACs until it is corrected",
            "line 8: protected is `1`, write yes or no; until then em-6 counts as protected",
            "line 8: rows of em-6 contradict each other about protected: it counts as protected",
        ]
    );
    let protected = |interface| inventory.machine(interface, &[], None).map(|machine| machine.protected);
    let expected = [Some(true), Some(true), Some(false), Some(true), None, Some(true)];
    assert_eq!(["eth1", "eth2", "eth3", "eth4", "eth5", "eth6"].map(protected), expected);
}

#[test]
fn a_forgotten_quote_swallows_nobody() {
    for (name, open) in [("in the middle", 4), ("and nothing after it", 2), ("a line that is short", 1)] {
        let rest = ["em-2,eth2,b\n", "em-3,eth3,\"c\"\n", "# x, y, z\n", "em-4,eth4,d\n"];
        let text = format!("server_id,interface,name\nem-1,eth1,\"a\n{}", rest[..open].concat());
        let (inventory, problems) = read(&text);
        assert_eq!(problems, ["line 2: a quote is opened and not closed in this line"], "{name}");
        assert_eq!(inventory.machine("eth1", &[], None), None);
        assert_eq!(id(inventory.machine("eth2", &[], None)), Some("em-2"), "{name}");
        assert_eq!(id(inventory.machine("eth4", &[], None)), (open == 4).then_some("em-4"), "{name}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Inventory::load(dir.path()).unwrap_err().to_string().contains("it is not a regular file"));
    assert!(Inventory::load(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn the_name_of_a_file_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("machines.JSON");
    fs::write(&file, r#"[{"server_id": "em-1", "interface": "eth0"}]"#).unwrap();
    assert_eq!(id(Inventory::load(&file).unwrap().0.machine("eth0", &[], None)), Some("em-1"));
    fs::write(&file, "server_id,interface\n").unwrap();
    let error = Inventory::load(&file).unwrap_err().to_string();
    assert!(error.contains("machines.JSON is not a list of machines: line 1: "), "{error}");
    assert!(error.ends_with(r#"write [{…}, …] or {"machines": [{…}, …]}"#), "{error}");
}

#[test]
fn the_example_is_right() {
    let (inventory, problems) = read(include_str!("../../../packaging/inventory.example.csv"));
    assert_eq!(problems, Vec::<String>::new());
    assert!(inventory.machines() >= 3);
}
