// What is in the page where outputs are: `learn` from harmless ones, `judge` the others by it.
(() => {
    const hits = [];
    // a property of its own, so that an element of this name is not taken for a script that ran
    Object.defineProperty(window, '__pwned', {get: () => undefined, set: value => { hits.push(value); }});

    const GLOBAL = new Set(['title', 'lang', 'dir', 'align', 'valign', 'start', 'open', 'width', 'height']);
    const TABLES = new Set(['colspan', 'rowspan', 'scope', 'border']);
    const HTML = new Set((
        'a abbr b blockquote br caption center cite code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li ' +
        'mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var'
    ).split(' '));
    const WEB = /^(https?:|mailto:|ftps?:|tel:|#|$)/i;
    const SCHEME = /^[\u0000-\u0020\u00a0\ufeff]*[a-z][a-z0-9+.\u0009\u000a\u000d-]*:/i;
    const PICTURE = /^data:image\/(png|jpe?g|gif|webp|avif|bmp|svg\+xml)[;,]/i;
    const TARGETS = new Set(['href', 'src', 'action', 'formaction', 'data', 'poster', 'background', 'cite', 'ping', 'srcset']);
    const MATHS = new Set((  // CSS properties that MathJax writes
        'color background-color font-size font-family font-style font-weight font-variant width min-width max-width height ' +
        'min-height vertical-align margin margin-left margin-right margin-top margin-bottom padding padding-left ' +
        'padding-right padding-top padding-bottom padding-inline border border-top border-bottom border-left border-right ' +
        'border-width border-style border-color line-height text-align letter-spacing transform transform-origin top left ' +
        'border-spacing border-collapse text-indent opacity flex float line-break white-space min-block-size'
    ).split(' '));
    const spec = {attributes: new Set(), handlers: new Set(), styles: new Set(), classes: new Set(), ids: new Set()};

    const tagOf = node => {
        const space = node.namespaceURI;
        const prefix = space === 'http://www.w3.org/1999/xhtml' ? '' : space.endsWith('svg') ? 'svg:' : 'math:';
        return prefix + node.localName;
    };
    const styleOf = text => text.replace(/-?\d+(\.\d+)?/g, 'N').replace(/\s+/g, ' ').trim();
    const isMaths = (tag, node) => /^(mjx-|math:)/.test(tag) && node.closest('mjx-container') !== null;

    function* elements(area) {
        const holders = '.jp-OutputArea-child, .jp-Cell';  // what is not closed holds what follows, in a page of one piece
        const own = area.closest(holders);
        for (const node of area.querySelectorAll('*')) if (node.closest(holders) === own) yield node;
    }

    const learn = areas => {
        for (const area of areas) {
            for (const node of elements(area)) {
                const tag = tagOf(node);
                spec.attributes.add(tag);
                for (const {name, value} of node.attributes) {
                    spec.attributes.add(`${tag} ${name}`);
                    if (/^on/i.test(name)) spec.handlers.add(`${tag} ${name} ${value}`);
                    if (name === 'style') spec.styles.add(styleOf(value));
                    if (name === 'class') node.classList.forEach(each => spec.classes.add(each));
                }
            }
        }
    };
    // the page's own names are those that are there before any payload is
    const keep = names => {
        document.querySelectorAll('[id]').forEach(node => {
            if (!node.closest('.jp-OutputArea-child')) spec.ids.add(node.id);
        });
        names.forEach(name => spec.ids.add(name));
    };

    // A link that the front end has made of plain text. Whatever its scheme is, it opens a window of its own, where
    // `javascript:` runs nothing (`test_a_link_of_plain_text_runs_nothing`).
    const isPlainLink = node => node.localName === 'a' && node.target === '_blank' && node.rel === 'noopener'
        && node.closest('pre') !== null && node.closest('.jp-RenderedMarkdown, .jp-RenderedHTML') === null;

    const wrongTarget = (tag, name, value, node) => {
        if (name === 'src') return value !== '' && !PICTURE.test(value);
        if (WEB.test(value) || isPlainLink(node)) return false;
        return SCHEME.test(value) || node.protocol === 'javascript:';
    };

    const wrongStyle = (tag, value, node) => {
        if (spec.styles.has(styleOf(value))) return false;
        if (/^text-align: ?(left|right|center);?$/.test(value)) return false;
        if (!isMaths(tag, node) && node.closest('mjx-container') === null) return true;
        const declarations = value.replace(/position: relative;/, '').split(';').filter(each => each.trim());
        return /url\(|expression|animation/i.test(value)
            || declarations.some(each => !MATHS.has(each.split(':')[0].trim().toLowerCase()));
    };

    const isPygments = (node, name) => /^[a-z]{1,2}\d?$/.test(name) && node.closest('.highlight') !== null;
    const KNOWN_CLASS = /^(language-[^"'<>=`]*|mjx-[\w-]+|MJX-[\w-]+|TEX-[\w-]+|ͼ\w+|ansi-[\w-]+|highlight|hl-\w+)$/;

    function* faults(node) {
        const tag = tagOf(node);
        const maths = isMaths(tag, node);
        if (!HTML.has(tag) && !spec.attributes.has(tag) && !maths) yield `element ${tag}`;
        for (const {name, value} of node.attributes) {
            const known = spec.attributes.has(`${tag} ${name}`) || GLOBAL.has(name) || (TABLES.has(name) && /^t/.test(tag)) || name === 'class';
            const formula = maths && !/^(on|src|xlink|data-commandlinker|contenteditable|name)/.test(name);
            if (/^on/i.test(name) ? !spec.handlers.has(`${tag} ${name} ${value}`) : !(known || formula)) yield `attribute ${name} of ${tag}`;
            else if (TARGETS.has(name)) { if (wrongTarget(tag, name, value, node)) yield `target ${name}=${value.slice(0, 80)}`; }
            else if (name === 'style') { if (wrongStyle(tag, value, node)) yield `style ${value.slice(0, 80)}`; }
            else if (name === 'id') { if (spec.ids.has(value)) yield `id ${value} is one of the page`; }
            else if (name === 'class') {
                const unknown = [...node.classList].filter(
                    each => !spec.classes.has(each) && !KNOWN_CLASS.test(each) && !isPygments(node, each)
                        && !/[={},:/]/.test(each)  // no class of a page
                );
                if (unknown.length) yield `class ${unknown.join(' ').slice(0, 80)}`;
            }
        }
        if (tag === 'input' && node.closest('.jupyter-widgets') === null && !(node.type === 'checkbox' && node.disabled))
            yield 'an input';
    }

    const show = node => node.closest('.jp-OutputArea-child')?.style.setProperty('display', 'block', 'important');

    // Show outputs, and do what a reader does with the mouse and the keyboard as far as anything listens; ordinary links
    // are not followed.
    const provoke = async areas => {
        areas.forEach(show);
        if (areas.length) await quiet(1500);
        for (const area of areas) {
            for (const node of elements(area)) {
                for (const {name, value} of node.attributes) {
                    if (/^on/i.test(name) && !spec.handlers.has(`${tagOf(node)} ${name} ${value}`))
                        node.dispatchEvent(new Event(name.slice(2).toLowerCase(), {bubbles: false}));
                }
                if (/^(javascript|vbscript):/i.test(node.protocol ?? '') && !isPlainLink(node)) node.click();
            }
        }
        if (areas.length) await quiet(500);
    };

    const judge = areas => {
        const found = [];
        areas.forEach((area, number) => {
            const wrong = new Map();
            for (const node of elements(area)) {
                for (const fault of faults(node)) if (!wrong.has(fault)) wrong.set(fault, node.outerHTML.slice(0, 160));
            }
            if (wrong.size) found.push({number, faults: [...wrong.entries()].slice(0, 5)});
        });
        return found;
    };

    const quiet = milliseconds => new Promise(resolve => {
        let timer = setTimeout(done, milliseconds);
        const observer = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(done, milliseconds); });
        function done() { observer.disconnect(); resolve(); }
        observer.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
    });

    // Outputs of a notebook in JupyterLab or Notebook 7, each with what its metadata says of it.
    const outputs = cells => cells.flatMap(cell => {
        const area = jupyterapp.shell.currentWidget.content.widgets[cell].outputArea;
        let last = {payloads: [], channel: 'none'};
        return area.widgets.map((widget, number) => {
            const model = area.model.get(number);
            const own = model?.metadata?.attack;
            last = own ?? last;
            const channel = model?.type === 'error' ? 'error' : last.channel;
            return {node: widget.node.querySelector('.jp-OutputArea-output') ?? widget.node, ...last, channel};
        });
    });

    window.oracle = {learn, keep, judge, provoke, show, quiet, outputs, hits, spec, hiding: null};
})();
