// A syntax tree of flat tokens, for languages that are read with regular expressions.

import { Input, NodeSet, NodeType, Parser, PartialParse, Tree, TreeFragment } from '@lezer/common';

/** A node of a tree that has no children: its type, and its first and last offset. */
export interface Token {
  readonly type: NodeType;
  readonly from: number;
  readonly to: number;
}

/** Types of nodes by name; the first is that of the whole tree. Its order is that of the names. */
export function nodeTypes<Name extends string>(...names: [Name, ...Name[]]): Record<Name, NodeType> {
  const types = names.map((name, id) => NodeType.define({ id, name, top: id === 0 }));
  return Object.fromEntries(types.map(type => [type.name, type])) as Record<Name, NodeType>;
}

/** A tree of the tokens between two offsets. */
export function treeOf(nodeSet: NodeSet, tokens: readonly Token[], from: number, to: number): Tree {
  const top = nodeSet.types[0]!;
  return new Tree(
    top,
    tokens.map(token => new Tree(nodeSet.types[token.type.id]!, [], [], token.to - token.from)),
    tokens.map(token => token.from - from),
    to - from
  );
}

type Range = { readonly from: number; readonly to: number };

/** A parser that reads all its text at once, and again at each change: for what takes no time. */
export abstract class WholeParser extends Parser {
  /** The tree of the ranges of a text. */
  protected abstract tree(input: Input, ranges: readonly Range[]): Tree;

  createParse(input: Input, _fragments: readonly TreeFragment[], ranges: readonly Range[]): PartialParse {
    const end = ranges[ranges.length - 1]?.to ?? input.length;
    let stoppedAt: number | null = null;
    return {
      parsedPos: end,
      get stoppedAt() {
        return stoppedAt;
      },
      stopAt: position => {
        stoppedAt = position;
      },
      advance: () => {
        const until = stoppedAt ?? end;
        const read = ranges.filter(range => range.from < until);
        return this.tree(
          input,
          read.map(range => ({ from: range.from, to: Math.min(range.to, until) }))
        );
      }
    };
  }
}
