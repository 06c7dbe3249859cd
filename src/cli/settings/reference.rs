//! The reference of every setting, as Markdown.

use super::Setting;

/// Tables of settings, one for each heading and set of commands.
pub(in crate::cli) fn markdown(settings: &[Setting]) -> String {
    let mut groups: Vec<(String, Vec<&Setting>)> = Vec::new();
    for setting in settings {
        let title = title(setting);
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, group)) => group.push(setting),
            None => groups.push((title, vec![setting])),
        }
    }
    let mut text = String::new();
    for (title, group) in groups {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &format!("### {title}\n\n");
        text += "| flag | variable | value | default | |\n| --- | --- | --- | --- | --- |\n";
        for Setting { flag, variable, value, default, help, .. } in group {
            let variable = if variable.is_empty() { "".into() } else { format!("`{variable}`") };
            let cells = [&format!("`{flag}`"), &variable, value, default, help];
            let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).into();
            text += &format!("| {} |\n", cells.join(" | "));
        }
    }
    text
}

fn title(setting: &Setting) -> String {
    let commands: Vec<String> = setting.commands.iter().map(|name| format!("`{name}`")).collect();
    let commands = if commands.is_empty() { "every command".into() } else { commands.join(", ") };
    match setting.heading.as_str() {
        "" => commands,
        heading => format!("{heading}: {commands}"),
    }
}
