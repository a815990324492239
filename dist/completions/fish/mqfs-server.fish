complete -c mqfs-server -s k -l key -d 'Key of the request queue: 0x and hexadecimal digits, or a decimal number [env: MQFS_KEY] [default: 0x1aaaaaa1]' -r
complete -c mqfs-server -l key-file -d 'Derive the key from a file instead: ftok(PATH, \'m\')' -r -F
complete -c mqfs-server -l root -d 'Serve what lies below this folder [default: /, unless others may ask a server that is not root\'s]' -r -F
complete -c mqfs-server -l mode -d 'Who may ask: 0600, 0620 (group), 0602 or 0622 (everybody)' -r
complete -c mqfs-server -l max-children -d 'Most children at once; further requests wait in the queue' -r
complete -c mqfs-server -l max-per-user -d 'Most children at once for one user; further requests are told to try again [default: 16 where others may ask]' -r
complete -c mqfs-server -l stall-timeout -d 'How long a child waits for a client that does not read' -r
complete -c mqfs-server -l drain-timeout -d 'How long children may go on when the server stops' -r
complete -c mqfs-server -l reap-interval -d 'How often to remove the queues of dead clients' -r
complete -c mqfs-server -l plain -d 'Which plain requests to answer: those of other programs, which prove nothing' -r -f -a "never\t'None'
owner\t'All, while --mode lets nobody but the owner ask'
any\t'All, though whoever may ask can then name anybody\'s queue'"
complete -c mqfs-server -l log-format -d 'How log lines look' -r -f -a "text\t'Time, level, message and name=value'
json\t'An object to a line'"
complete -c mqfs-server -s v -l verbose -d 'Log more'
complete -c mqfs-server -s q -l quiet -d 'Log only what is wrong'
complete -c mqfs-server -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mqfs-server -s V -l version -d 'Print version'
