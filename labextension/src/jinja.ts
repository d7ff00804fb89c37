// The language of templates: Jinja2's tags in a text, and the tokens in them.

import { defineLanguageFacet, indentNodeProp, languageDataProp } from '@codemirror/language';
import { Input, NodeSet, Tree } from '@lezer/common';
import { styleTags, tags } from '@lezer/highlight';
import { nodeTypes, Token, treeOf, WholeParser } from './tokens';

/** What an editor knows of templates: how they are commented, and which brackets go together. */
export const templateData = defineLanguageFacet({
  commentTokens: { block: { open: '{#', close: '#}' } },
  closeBrackets: { brackets: ['(', '[', '{', '"'] }
});

const types = nodeTypes(
  'Jinja',
  'JinjaComment',
  'JinjaDelimiter',
  'JinjaKeyword',
  'JinjaConstant',
  'JinjaFilter',
  'JinjaAttribute',
  'JinjaName',
  'JinjaString',
  'JinjaNumber',
  'JinjaOperator',
  'JinjaPunctuation'
);

const nodeSet = new NodeSet(Object.values(types)).extend(
  styleTags({
    JinjaComment: tags.blockComment,
    JinjaDelimiter: tags.special(tags.string), // legible on dark, unlike the colour of Markdown's marks
    JinjaKeyword: tags.keyword,
    JinjaConstant: tags.atom,
    JinjaFilter: tags.standard(tags.variableName),
    JinjaAttribute: tags.propertyName,
    JinjaName: tags.special(tags.variableName),
    JinjaString: tags.string,
    JinjaNumber: tags.number,
    JinjaOperator: tags.operator,
    JinjaPunctuation: tags.punctuation
  }),
  languageDataProp.add({ Jinja: templateData }),
  indentNodeProp.add({ Jinja: () => null })
);

// https://jinja.palletsprojects.com/en/stable/templates/#list-of-control-structures
const KEYWORDS = new Set(
  (
    'and as autoescape block call continue break do elif else endautoescape endblock endcall endfilter endfor endif ' +
    'endmacro endraw endset endtrans endwith extends filter for from if ignore import in include is macro missing ' +
    'not or pluralize raw recursive required scoped set trans with without context'
  ).split(' ')
);
const CONSTANTS = new Set(['true', 'false', 'none', 'True', 'False', 'None']);

const BEGIN = /\{\{(?!\{)|\{%|\{#/g; // `{{{` is a brace before a value: so the templates of %%llm read it
const LONGEST = 20_000; // characters of a tag; a text of tags that are all open is still read in no time
const RAW = /\{%[-+]?\s*raw\s*[-+]?%\}$/;
const END_OF_RAW = /\{%[-+]?\s*endraw\s*[-+]?%\}/g;
const TOKEN =
  /(?<space>\s+)|(?<string>"(?:[^"\\]|\\[^])*"|'(?:[^'\\]|\\[^])*')|(?<number>\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?<name>[\p{L}_][\p{L}\p{N}_]*)|(?<end>[-+]?%\}|[-+]?\}\})|(?<begin>\{[{%#])|(?<operator>\*\*|\/\/|[=!<>]=|[-+*/%~<>=|])|(?<other>[^])/uy;

/** A tag of a template: its first and last offset, and the tokens in it. */
export interface Tag {
  readonly from: number;
  readonly to: number;
  readonly tokens: readonly Token[];
}

/** The tags of a text that are closed, in order; what is between `raw` and `endraw` has none. */
export function tagsIn(text: string): Tag[] {
  const found: Tag[] = [];
  const begin = new RegExp(BEGIN);
  for (let match = begin.exec(text); match !== null; match = begin.exec(text)) {
    const tag = tagAt(text, match.index);
    if (tag === null) continue;
    found.push(tag);
    begin.lastIndex = tag.to;
    if (RAW.test(text.slice(tag.from, tag.to))) {
      const end = new RegExp(END_OF_RAW);
      end.lastIndex = tag.to;
      begin.lastIndex = end.exec(text)?.index ?? text.length;
    }
  }
  return found;
}

/** The tag that begins at an offset of a text, if there is one that is closed. */
export function tagAt(text: string, from: number): Tag | null {
  const begin = new RegExp(BEGIN.source, 'y');
  begin.lastIndex = from;
  const begun = begin.exec(text)?.[0];
  if (begun === undefined) return null;
  if (begun === '{#') {
    const length = text.slice(from, from + LONGEST).indexOf('#}', 2) + 2;
    if (length < 2) return null;
    return { from, to: from + length, tokens: [{ type: types.JinjaComment, from, to: from + length }] };
  }
  const close = text[from + 1] === '%' ? '%}' : '}}';
  const start = from + 2 + (/[-+]/.test(text[from + 2] ?? '') ? 1 : 0);
  const tokens: Token[] = [{ type: types.JinjaDelimiter, from, to: start }];
  const token = new RegExp(TOKEN);
  let before = ''; // the last token that is not space: what a name means depends on it
  let braces = 0; // of dicts, whose ends may look like that of the tag
  token.lastIndex = start;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const groups = match.groups!;
    let { index: at, 0: value } = match;
    if (at - from > LONGEST) return null;
    if (groups.space !== undefined) continue;
    if (groups.begin !== undefined) return null; // the tag before was not closed
    if (groups.end !== undefined) {
      if (braces === 0 && value.endsWith(close)) {
        tokens.push({ type: types.JinjaDelimiter, from: at, to: at + value.length });
        return { from, to: at + value.length, tokens };
      }
      value = value[0]!; // a sign, or one of the braces
      token.lastIndex = at + 1;
    }
    if (value === '{') braces += 1;
    if (value === '}') braces = Math.max(0, braces - 1);
    tokens.push({ type: typeOf(value, groups, before), from: at, to: at + value.length });
    before = value;
  }
  return null;
}

function typeOf(value: string, groups: Record<string, string | undefined>, before: string) {
  if (groups.string !== undefined) return types.JinjaString;
  if (groups.number !== undefined) return types.JinjaNumber;
  if (groups.name === undefined) return /[-+*/%~<>=!|]/.test(value) ? types.JinjaOperator : types.JinjaPunctuation;
  if (before === '.') return types.JinjaAttribute;
  if (before === '|') return types.JinjaFilter;
  if (KEYWORDS.has(value)) return types.JinjaKeyword;
  return CONSTANTS.has(value) ? types.JinjaConstant : types.JinjaName;
}

class JinjaParser extends WholeParser {
  protected tree(input: Input, ranges: readonly { from: number; to: number }[]): Tree {
    const from = ranges[0]?.from ?? 0;
    const tokens = ranges.flatMap(range =>
      tagsIn(input.read(range.from, range.to)).flatMap(tag =>
        tag.tokens.map(token => ({
          type: token.type,
          from: range.from + token.from,
          to: range.from + token.to
        }))
      )
    );
    return treeOf(nodeSet, tokens, from, ranges[ranges.length - 1]?.to ?? from);
  }
}

/** The parser of ranges that are tags. */
export const jinjaParser = new JinjaParser();
