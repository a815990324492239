complete -c mqfs-client -s k -l key -d 'Key of the request queue: 0x and hexadecimal digits, or a decimal number [env: MQFS_KEY] [default: 0x1aaaaaa1]' -r
complete -c mqfs-client -l key-file -d 'Derive the key from a file instead: ftok(PATH, \'m\')' -r -F
complete -c mqfs-client -s o -l output -d 'Write to FILE, which appears complete or not at all' -r -F
complete -c mqfs-client -s C -l directory -d 'Write below the folder DIR, under the names that the files have' -r -F
complete -c mqfs-client -l offset -d 'Begin at this byte, the first being 0: 4096, 64K, 1M' -r
complete -c mqfs-client -l length -d 'Fetch at most so many bytes' -r
complete -c mqfs-client -l timeout -d 'Fail when nothing came for this long' -r
complete -c mqfs-client -l retries -d 'Ask again this often in a row when a server dies and nothing new arrived since the last time' -r
complete -c mqfs-client -l server-uid -d 'Trust a server of this user, besides root\'s and your own' -r
complete -c mqfs-client -l progress -d 'Show on standard error how far it is' -r -f -a "auto\t'On a terminal, after half a second, unless the files go to a terminal themselves'
always\t'At once, and also where standard error is no terminal'
never\t'Not at all'"
complete -c mqfs-client -s r -l recursive -d 'Fetch directories with all that is below them, to -C DIR or as --tar'
complete -c mqfs-client -l tar -d 'Write a tar archive to standard output'
complete -c mqfs-client -l no-preserve -d 'Do not keep modes and times of what is written to -C DIR or as --tar'
complete -c mqfs-client -s l -l list -d 'List what directories hold, like ls -l'
complete -c mqfs-client -l stat -d 'Show what something is, like stat'
complete -c mqfs-client -l json -d 'Show it as JSON, an object a line'
complete -c mqfs-client -l plain -d 'Speak the protocol of other programs only: nothing is proven or verified'
complete -c mqfs-client -s v -l verbose -d 'Say what arrived, whether it was verified, and how long it all took'
complete -c mqfs-client -s q -l quiet -d 'Say nothing; the exit status tells'
complete -c mqfs-client -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-client -s V -l version -d 'Print version'
