// The editor of a code cell: its language is that of prompts as long as its text begins with %%llm.

import type { Language } from '@codemirror/language';
import { Compartment, EditorState, Extension, Prec, Text } from '@codemirror/state';
import { EditorView, ViewPlugin } from '@codemirror/view';
import { endOfHeader } from './prompt';

/**
 * An extension of one editor that puts the language of prompts before the cell's own while its text is a prompt.
 *
 * The cell's type stays what it is, and with it what depends on it: completion, inspection, language servers. The
 * language is loaded when the first prompt is seen; from then on the edit that makes a text a prompt, or no prompt,
 * changes the language, too: there is no step of its own that an undo could find.
 */
export function promptHighlighting(load: () => Promise<Language | null>): Extension {
  const compartment = new Compartment();
  let prompts: Language | null = null;
  const languageOf = (text: Text): Extension =>
    prompts !== null && endOfHeader(text.toString()) !== null ? Prec.high(prompts.extension) : NONE;

  const switcher = EditorState.transactionExtender.of(transaction => {
    if (!transaction.docChanged || prompts === null) return null;
    const [before, now] = [compartment.get(transaction.startState), languageOf(transaction.newDoc)];
    return (before === NONE) === (now === NONE) ? null : { effects: compartment.reconfigure(now) };
  });

  const loader = ViewPlugin.define(created => {
    let asked = false;
    const ask = async (view: EditorView) => {
      if (asked || endOfHeader(view.state.doc.toString()) === null) return;
      asked = true;
      prompts = await load();
      view.dispatch({ effects: compartment.reconfigure(languageOf(view.state.doc)) });
    };
    void ask(created);
    return { update: update => void (update.docChanged && ask(update.view)) };
  });

  return [compartment.of(NONE), switcher, loader];
}

const NONE: Extension = [];
