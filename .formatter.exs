locals_without_parens = [defkernel: 2, defkernel: 3]

[
  inputs: ["{mix,.formatter}.exs", "{bench,config,examples,lib,native,test}/**/*.{ex,exs}"],
  locals_without_parens: locals_without_parens,
  # For projects with `import_deps: [:ex_cubecl]` in their own file.
  export: [locals_without_parens: locals_without_parens]
]
