complete -c mqfs-client -l offset -d 'Begin at this byte, counted from 0: 4096, 64K, 1M. Beyond the end of a file is nothing. For standard output or -o FILE' -r
complete -c mqfs-client -l length -d 'Fetch at most this many bytes, to standard output or -o FILE' -r
complete -c mqfs-client -s o -l output -d 'Write to FILE, which appears complete or not at all; - is standard output' -r -F
complete -c mqfs-client -s C -l directory -d 'Write the files into the directory DIR, under their own names' -r -f -a "(__fish_complete_directories)"
complete -c mqfs-client -l progress -d 'When to show a progress bar on standard error [default: auto, or never with --quiet]' -r -f -a "auto\t'On a terminal, after half a second, unless the files go to a terminal themselves'
always\t'At once, and also where standard error is no terminal'
never\t'Not at all'"
complete -c mqfs-client -s k -l key -d 'Key of the request queue: 0x and hexadecimal digits, 0 and octal ones, or a decimal number [env: MQFS_KEY] [default: 0x1aaaaaa1]' -r
complete -c mqfs-client -l key-file -d 'Derive the key from an existing file: ftok(PATH, \'m\')' -r -F
complete -c mqfs-client -l server-uid -d 'Trust this user\'s server, and not only root\'s and your own: a name or a uid' -r -f -a "(__fish_complete_users)"
complete -c mqfs-client -l timeout -d 'Fail if nothing arrives for this long. Without a server, fail at once' -r
complete -c mqfs-client -l retries -d 'Ask again at most this often in a row if servers die and no byte arrives in between' -r
complete -c mqfs-client -s r -l recursive -d 'Fetch directories with everything below them, to -C DIR or as --tar'
complete -c mqfs-client -s l -l list -d 'List the entries of directories, like ls -l; without a PATH, those of /'
complete -c mqfs-client -l stat -d 'Show the metadata of a file, like stat'
complete -c mqfs-client -l tar -d 'Write a tar archive to standard output'
complete -c mqfs-client -l no-preserve -d 'Do not keep the files\' modes and times in -C DIR or --tar'
complete -c mqfs-client -l json -d 'Print --list or --stat as JSON, one object to a line'
complete -c mqfs-client -s v -l verbose -d 'Say what arrived, whether it was verified, how long it took, and what the client waits for'
complete -c mqfs-client -s q -l quiet -d 'Print no messages; the exit status tells'
complete -c mqfs-client -l plain -d 'Use only the plain protocol, that of other programs: no proof of identity, no checksum'
complete -c mqfs-client -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-client -s V -l version -d 'Print version'
