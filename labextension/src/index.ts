// The plugin of JupyterLab and Notebook: %%llm cells are highlighted as prompts; it does nothing else.

import type { Language } from '@codemirror/language';
import { IEditorExtensionRegistry, IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import type { MarkdownParser } from '@lezer/markdown';
import type { IPlugin } from '@lumino/application';
import { promptHighlighting } from './editor';
import { promptLanguage } from './prompt';

const plugin: IPlugin<unknown, void> = {
  id: 'llm-magic:highlighting',
  description: 'Highlights %%llm cells as prompts: Markdown with Jinja.',
  autoStart: true,
  requires: [IEditorExtensionRegistry, IEditorLanguageRegistry],
  activate(_app: unknown, extensions: IEditorExtensionRegistry, languages: IEditorLanguageRegistry) {
    let loading: Promise<Language | null> | undefined;
    const load = () => {
      loading ??= languages.getLanguage('text/x-markdown').then(markdown => {
        const parser = markdown?.support?.language.parser;
        return parser !== undefined && 'configure' in parser ? promptLanguage(parser as MarkdownParser) : null;
      });
      return loading;
    };
    const extension = { instance: () => promptHighlighting(load), reconfigure: () => null };
    extensions.addExtension({
      name: 'llm-magic:highlighting',
      factory: ({ model }) => ('type' in model && model.type === 'code' ? extension : null)
    });
  }
};

export default plugin;
