"""Result files in, tables out: terminal, Markdown, HTML. Needs neither torch nor any MM package."""
