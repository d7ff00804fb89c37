// The plugin of JupyterLab and Notebook: %%llm cells are highlighted as prompts; it does nothing else.

import type { Language } from '@codemirror/language';
import { IEditorExtensionRegistry, IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import type { MarkdownParser } from '@lezer/markdown';
import type { IPlugin } from '@lumino/application';
import { promptHighlighting, PromptLanguage } from './editor';
import { promptLanguage } from './prompt';

/** The language of prompts, made of the front end's own Markdown, so that this need not bring one. */
class LoadedOnce implements PromptLanguage {
  constructor(private readonly languages: IEditorLanguageRegistry) {}

  loaded: Language | null = null;

  load(): Promise<void> {
    this.loading ??= this.languages.getLanguage('text/x-markdown').then(markdown => {
      const parser = markdown?.support?.language.parser;
      if (parser !== undefined && 'configure' in parser) this.loaded = promptLanguage(parser as MarkdownParser);
    });
    return this.loading;
  }

  private loading?: Promise<void>;
}

const plugin: IPlugin<unknown, void> = {
  id: 'llm-magic:highlighting',
  description: 'Highlights %%llm cells as prompts: Markdown with Jinja.',
  autoStart: true,
  requires: [IEditorExtensionRegistry, IEditorLanguageRegistry],
  activate(_app: unknown, extensions: IEditorExtensionRegistry, languages: IEditorLanguageRegistry) {
    const prompts = new LoadedOnce(languages);
    const extension = { instance: () => promptHighlighting(prompts), reconfigure: () => null };
    extensions.addExtension({
      name: 'llm-magic:highlighting',
      factory: ({ model }) => ('type' in model && model.type === 'code' ? extension : null)
    });
  }
};

export default plugin;
