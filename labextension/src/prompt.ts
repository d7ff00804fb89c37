// The language of a %%llm cell: the line of the magic, and below it Markdown with Jinja.

import { Language, languageDataProp, indentNodeProp } from '@codemirror/language';
import { Input, NodeSet, Parser, parseMixed, Tree } from '@lezer/common';
import { styleTags, tags } from '@lezer/highlight';
import type { MarkdownParser } from '@lezer/markdown';
import { jinjaParser, tagAt, tagsIn, templateData } from './jinja';
import { nodeTypes, Token, treeOf, WholeParser } from './tokens';

// Blank lines and comments may come before the magic: the extension's input transformer allows them.
const HEADER = /^(?:\s*#.*(?:\n|$))*\s*%%llm(?!\S).*/;
const HEADER_TOKEN =
  /(?<comment>^[ \t]*#.*)|(?<magic>%%llm(?!\S))|(?<option>(?<!\S)--?[A-Za-z][\w-]*)|(?<string>"(?:[^"\\]|\\.)*"|'[^']*')|(?<number>(?<!\S)-?\d+(?:\.\d+)?(?!\S))/gm;

/** The offset at which the line of the magic ends, where a text is a %%llm cell; null where it is none. */
export function endOfHeader(text: string): number | null {
  return HEADER.exec(text)?.[0].length ?? null;
}

const types = nodeTypes('Prompt', 'Comment', 'Magic', 'Option', 'OptionString', 'OptionNumber', 'Body');
const kinds = {
  comment: types.Comment,
  magic: types.Magic,
  option: types.Option,
  string: types.OptionString,
  number: types.OptionNumber
};

const nodeSet = new NodeSet(Object.values(types)).extend(
  styleTags({
    Comment: tags.lineComment,
    Magic: tags.keyword,
    Option: tags.attributeName,
    OptionString: tags.string,
    OptionNumber: tags.number
  }),
  languageDataProp.add({ Prompt: templateData }),
  indentNodeProp.add({ Prompt: () => null })
);

function headerTokens(header: string): Token[] {
  return Array.from(header.matchAll(HEADER_TOKEN), match => {
    const kind = Object.entries(kinds).find(([name]) => match.groups![name] !== undefined)!;
    return { type: kind[1], from: match.index, to: match.index + match[0].length };
  });
}

class PromptParser extends WholeParser {
  constructor(body: Parser) {
    super();
    this.wrapper = parseMixed(node => (node.type.id === types.Body.id ? { parser: body } : null));
  }

  override createParse(...given: Parameters<WholeParser['createParse']>) {
    return this.wrapper(super.createParse(...given), ...given);
  }

  protected tree(input: Input, ranges: readonly { from: number; to: number }[]): Tree {
    const end = ranges[ranges.length - 1]?.to ?? 0;
    const text = input.read(0, end);
    const header = endOfHeader(text) ?? end;
    const tokens = headerTokens(text.slice(0, header));
    if (header + 1 < end) tokens.push({ type: types.Body, from: header + 1, to: end });
    return treeOf(nodeSet, tokens, 0, end);
  }

  private readonly wrapper: ReturnType<typeof parseMixed>;
}

const STATEMENT = /^\s*\{[%#].*[%#]\}\s*$/;

/** Markdown in which a tag of Jinja is one thing, whatever it holds, and is read as Jinja everywhere. */
function markdownWithJinja(markdown: MarkdownParser): MarkdownParser {
  return markdown.configure({
    props: [languageDataProp.add({ Document: templateData })],
    defineNodes: ['JinjaTag', { name: 'JinjaLine', block: true }],
    parseInline: [
      {
        name: 'JinjaTag',
        before: 'Escape',
        parse(context, next, position) {
          if (next !== 123 /* { */) return -1;
          const tag = tagAt(context.text, position - context.offset);
          return tag ? context.addElement(context.elt('JinjaTag', position, context.offset + tag.to)) : -1;
        }
      }
    ],
    parseBlock: [
      {
        name: 'JinjaLine', // is dropped with its line end, so that Markdown does not go on over it
        before: 'IndentedCode',
        parse(context, line) {
          if (!STATEMENT.test(line.text)) return false;
          context.addElement(
            context.elt('JinjaLine', context.lineStart + line.pos, context.lineStart + line.text.length)
          );
          context.nextLine();
          return true;
        },
        endLeaf: (_context, line) => STATEMENT.test(line.text)
      }
    ],
    wrap: parseMixed((node, input) => {
      if (!node.type.isTop) return null;
      const overlay: { from: number; to: number }[] = [];
      for (const tag of tagsIn(input.read(node.from, node.to))) {
        const last = overlay[overlay.length - 1];
        if (last?.to === node.from + tag.from) last.to = node.from + tag.to;
        else overlay.push({ from: node.from + tag.from, to: node.from + tag.to });
      }
      return overlay.length > 0 ? { parser: jinjaParser, overlay } : null;
    })
  });
}

/** The language of %%llm cells, made of the Markdown that the front end has. */
export function promptLanguage(markdown: MarkdownParser): Language {
  return new Language(templateData, new PromptParser(markdownWithJinja(markdown)), [], 'llm');
}
