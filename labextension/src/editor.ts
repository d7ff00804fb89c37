// The editor of a code cell: its language is that of prompts as long as its text begins with %%llm.

import type { Language } from '@codemirror/language';
import { Compartment, EditorState, Extension, Prec, Text } from '@codemirror/state';
import { EditorView, ViewPlugin } from '@codemirror/view';
import { endOfHeader } from './prompt';

/** The language of prompts, which is loaded when the first prompt is seen. */
export interface PromptLanguage {
  readonly loaded: Language | null;
  load(): Promise<void>;
}

const LONGEST = 100_000; // characters of a prompt: each edit reads all its tags, which then takes tens of milliseconds
const NONE: Extension = [];
const isPrompt = (text: Text) => text.length <= LONGEST && endOfHeader(text.toString()) !== null;

/**
 * An extension of one editor that puts the language of prompts before the cell's own while its text is a prompt.
 *
 * The cell's type stays what it is, and with it what depends on it: completion, inspection, language servers. The edit
 * that makes a text a prompt, or no prompt, changes the language, too: there is no step of its own for an undo to find.
 */
export function promptHighlighting(prompts: PromptLanguage): Extension {
  const compartment = new Compartment();
  const languageOf = (text: Text): Extension =>
    prompts.loaded !== null && isPrompt(text) ? Prec.high(prompts.loaded.extension) : NONE;

  const switcher = EditorState.transactionExtender.of(transaction => {
    if (!transaction.docChanged || prompts.loaded === null) return null;
    const [before, now] = [compartment.get(transaction.startState), languageOf(transaction.newDoc)];
    return (before === NONE) === (now === NONE) ? null : { effects: compartment.reconfigure(now) };
  });

  const loader = ViewPlugin.define(created => {
    const load = async (view: EditorView) => {
      if (compartment.get(view.state) !== NONE || !isPrompt(view.state.doc)) return;
      await prompts.load();
      view.dispatch({ effects: compartment.reconfigure(languageOf(view.state.doc)) });
    };
    void load(created);
    return { update: update => void (update.docChanged && prompts.loaded === null && load(update.view)) };
  });

  return [compartment.of(NONE), switcher, loader];
}
