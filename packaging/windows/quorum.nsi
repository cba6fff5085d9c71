; The installer for Windows, made by packaging/windows/installer.py, which defines VERSION, NUMBER (four numbers),
; DIST (the frozen program), ICON, SIDEBAR and OUT; TARGET only in tests.
;
; Per user: $INSTDIR\app is the program and nothing else, $INSTDIR\uninstall.exe takes it away. What the user made lies
; in $LOCALAPPDATA\quorum and is never touched but by the uninstaller, when asked to.
;
; Without questions: /S, and with it /FIREWALL (open the ports too), /NOLOGIN (no start at login), /D=FOLDER (last).
; The uninstaller: /S, and with it /REMOVEDATA.
Unicode true
!ifdef TARGET
Target ${TARGET}
!endif
!include MUI2.nsh
!include LogicLib.nsh
!include FileFunc.nsh
!include WinVer.nsh
!include x64.nsh
!include nsDialogs.nsh
!include StrFunc.nsh
!insertmacro GetParameters
!insertmacro GetOptions
!insertmacro un.GetParameters
!insertmacro un.GetOptions

!define UNINSTALL "Software\Microsoft\Windows\CurrentVersion\Uninstall\Quorum"
!define RUN "Software\Microsoft\Windows\CurrentVersion\Run"
!define APPROVED "Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"
!define WEBVIEW "Microsoft\EdgeUpdate\Clients\{F3017226-FE2A-4295-8BDF-00C3A9A7E4C5}"
!define RULE_PEERS "Quorum (paired computers)"
!define RULE_MDNS "Quorum (finding computers)"
!define PEER_PORT 7412
!define QUIT_MS 60000

Name "Quorum"
BrandingText "Quorum ${VERSION}"
OutFile "${OUT}"
RequestExecutionLevel user
InstallDir "$LOCALAPPDATA\Programs\Quorum"
InstallDirRegKey HKCU "${UNINSTALL}" "InstallLocation"
SetCompressor /SOLID lzma
AllowSkipFiles off
ManifestDPIAware true
ManifestSupportedOS all
SetOverwrite on
CRCCheck on
!ifdef SIGN
!finalize '${SIGN} "%1"'
!uninstfinalize '${SIGN} "%1"'
!endif

VIProductVersion "${NUMBER}"
VIFileVersion "${NUMBER}"
VIAddVersionKey /LANG=1033 "ProductName" "Quorum"
VIAddVersionKey /LANG=1033 "ProductVersion" "${VERSION}"
VIAddVersionKey /LANG=1033 "FileVersion" "${VERSION}"
VIAddVersionKey /LANG=1033 "FileDescription" "Quorum Setup"
VIAddVersionKey /LANG=1033 "CompanyName" "${PUBLISHER}"
VIAddVersionKey /LANG=1033 "LegalCopyright" "${COPYRIGHT}"

!define MUI_ICON "${ICON}"
!define MUI_UNICON "${ICON}"
!define MUI_ABORTWARNING
!define MUI_WELCOMEFINISHPAGE_BITMAP "${SIDEBAR}"
!define MUI_COMPONENTSPAGE_SMALLDESC
!define MUI_FINISHPAGE_RUN "$INSTDIR\app\quorum.exe"
!define MUI_FINISHPAGE_RUN_TEXT "Start Quorum"
!insertmacro MUI_PAGE_COMPONENTS
!define MUI_PAGE_CUSTOMFUNCTION_LEAVE SettleFolder
!insertmacro MUI_PAGE_DIRECTORY
!insertmacro MUI_PAGE_INSTFILES
!insertmacro MUI_PAGE_FINISH
!insertmacro MUI_UNPAGE_CONFIRM
UninstPage custom un.DataPage un.DataPageLeave
!insertmacro MUI_UNPAGE_INSTFILES
!insertmacro MUI_LANGUAGE "English"

LangString NEEDS_WINDOWS ${LANG_ENGLISH} "Quorum needs Windows 10 (64 bits) or newer."
LangString ONE_AT_A_TIME ${LANG_ENGLISH} "Quorum Setup already runs."
LangString STILL_RUNS ${LANG_ENGLISH} "Quorum still runs and could not be closed.$\n$\nClose it (its icon beside the clock, Quit), then press Retry."
LangString NOT_COPIED ${LANG_ENGLISH} "The files of Quorum could not be written to $INSTDIR. Is there enough room, and may you write there?$\n$\nNothing was changed."
LangString NOT_SWAPPED ${LANG_ENGLISH} "The files of Quorum in $INSTDIR are in use by another program, so the new version could not take their place.$\n$\nThe earlier version is still there."
LangString NEEDS_WEBVIEW ${LANG_ENGLISH} "Quorum is installed, but its window needs Microsoft's WebView2 Runtime, which this computer lacks.$\n$\nGet 'Evergreen Bootstrapper' at$\nhttps://developer.microsoft.com/microsoft-edge/webview2$\nand install it, then start Quorum."
LangString FIREWALL_ASKS ${LANG_ENGLISH} "Windows will now ask whether an administrator allows two rules of the firewall: TCP port ${PEER_PORT}, by which paired computers reach Quorum, and UDP port 5353, by which computers find each other. Both only in private and domain networks.$\n$\nWithout them Quorum works on this computer alone."
LangString FIREWALL_REFUSED ${LANG_ENGLISH} "The rules of the firewall were not added. Quorum works on this computer; other computers may not reach it.$\n$\nStart this setup again when you want them."
LangString KEEP_TITLE ${LANG_ENGLISH} "What you made with Quorum"
LangString KEEP_TEXT ${LANG_ENGLISH} "Conversations, settings, pairings and models are kept unless you say otherwise."
LangString KEEP_FOLDER ${LANG_ENGLISH} "They lie in $LOCALAPPDATA\quorum. A later installation finds them there. Models of LM Studio, Ollama and your own folders are never deleted."
LangString REMOVE_DATA ${LANG_ENGLISH} "&Delete them too. This can't be undone."
LangString FIREWALL_LEFT ${LANG_ENGLISH} "The two rules of the firewall are still there, as no administrator agreed to remove them. They let nothing in while Quorum is not installed."
LangString DESC_QUORUM ${LANG_ENGLISH} "The program, and its entry in the start menu."
LangString DESC_LOGIN ${LANG_ENGLISH} "Starts Quorum hidden beside the clock when you log in. It can be changed there at any time."
LangString DESC_FIREWALL ${LANG_ENGLISH} "Lets paired computers of private networks reach Quorum. Windows asks for an administrator."

Var WasRunning
Var Before
Var RemoveData
Var Check

; Ends the Quorum of a folder in order: running jobs get their time, what is left waits for the next start.
; Leaves the errors flag set when it still runs, and 1 in $WasRunning when it ran.
!macro CLOSE un folder
  ClearErrors
  ${If} ${FileExists} "${folder}\quorum.exe"
    nsExec::ExecToLog /TIMEOUT=${QUIT_MS} '"${folder}\quorum.exe" quit'
    Pop $0
    ${If} $0 == 0
      StrCpy $WasRunning 1
    ${EndIf}
    Push "${folder}\quorum.exe"
    Call ${un}WaitUntilFree
  ${EndIf}
!macroend

; The program's file can be written once no process runs it. Sets the errors flag when that takes longer than 10 s.
!macro WAIT un
Function ${un}WaitUntilFree
  Exch $0
  Push $1
  Push $2
  StrCpy $1 0
  again:
    ClearErrors
    FileOpen $2 "$0" a
    IfErrors busy
    FileClose $2
    ClearErrors
    Goto done
  busy:
    IntOp $1 $1 + 1
    IntCmp $1 50 giveup
    Sleep 200
    Goto again
  giveup:
    SetErrors
  done:
  Pop $2
  Pop $1
  Pop $0
FunctionEnd
!macroend
!insertmacro WAIT ""
!insertmacro WAIT "un."

; 0 in $R0 when both rules of the firewall are there.
!macro HAVERULES
  nsExec::Exec 'netsh advfirewall firewall show rule name="${RULE_PEERS}"'
  Pop $R0
  ${If} $R0 == 0
    nsExec::Exec 'netsh advfirewall firewall show rule name="${RULE_MDNS}"'
    Pop $R0
  ${EndIf}
!macroend

Function .onInit
  ${IfNot} ${AtLeastWin10}
  ${OrIfNot} ${RunningX64}
    MessageBox MB_OK|MB_ICONSTOP "$(NEEDS_WINDOWS)" /SD IDOK
    SetErrorLevel 3
    Quit
  ${EndIf}
  System::Call 'kernel32::CreateMutexW(p 0, i 0, w "QuorumSetup") p .r1 ?e'
  Pop $0
  ${If} $0 == 183
    MessageBox MB_OK|MB_ICONSTOP "$(ONE_AT_A_TIME)" /SD IDOK
    SetErrorLevel 4
    Quit
  ${EndIf}
  SetShellVarContext current
  ReadRegStr $Before HKCU "${UNINSTALL}" "InstallLocation"
  Call Choices
FunctionEnd

; A folder that holds somebody else's 'app' is left alone: Quorum gets one of its own inside.
Function SettleFolder
  ${If} ${FileExists} "$INSTDIR\app\*.*"
  ${AndIfNot} ${FileExists} "$INSTDIR\app\quorum.exe"
    StrCpy $INSTDIR "$INSTDIR\Quorum"
  ${EndIf}
FunctionEnd

Section "!Quorum" SEC_QUORUM
  SectionIn RO
  Call SettleFolder

  ; 1. The new version beside the old one, which may still run.
  RMDir /r "$INSTDIR\app.new"
  ClearErrors
  SetOutPath "$INSTDIR\app.new"
  File /r "${DIST}\*.*"
  SetOutPath "$INSTDIR"
  ${If} ${Errors}
    RMDir /r "$INSTDIR\app.new"
    DetailPrint "$(NOT_COPIED)"
    MessageBox MB_OK|MB_ICONSTOP "$(NOT_COPIED)" /SD IDOK
    SetErrorLevel 5
    Abort
  ${EndIf}

  ; 2. The old one ends.
  close:
  ${If} $Before != ""
  ${AndIf} $Before != $INSTDIR
    !insertmacro CLOSE "" "$Before\app"
    IfErrors running
  ${EndIf}
  !insertmacro CLOSE "" "$INSTDIR\app"
  IfErrors running swap
  running:
    MessageBox MB_RETRYCANCEL|MB_ICONEXCLAMATION "$(STILL_RUNS)" /SD IDCANCEL IDRETRY close
    RMDir /r "$INSTDIR\app.new"
    SetErrorLevel 6
    Abort

  ; 3. They change places; the old one comes back when the new one can't have its place.
  swap:
  RMDir /r "$INSTDIR\app.old"
  ClearErrors
  ${If} ${FileExists} "$INSTDIR\app\*.*"
    Rename "$INSTDIR\app" "$INSTDIR\app.old"
  ${EndIf}
  ${IfNot} ${Errors}
    Rename "$INSTDIR\app.new" "$INSTDIR\app"
    ${If} ${Errors}
      Rename "$INSTDIR\app.old" "$INSTDIR\app"
      SetErrors
    ${EndIf}
  ${EndIf}
  ${If} ${Errors}
    RMDir /r "$INSTDIR\app.new"
    DetailPrint "$(NOT_SWAPPED)"
    MessageBox MB_OK|MB_ICONSTOP "$(NOT_SWAPPED)" /SD IDOK
    SetErrorLevel 7
    Abort
  ${EndIf}
  RMDir /r "$INSTDIR\app.old"
  RMDir /r "$INSTDIR\.app.update" ; what a self-update kept belongs to the version that left
  ${If} $Before != ""
  ${AndIf} $Before != $INSTDIR
    RMDir /r "$Before\app"
    RMDir /r "$Before\.app.update"
    Delete "$Before\uninstall.exe"
    RMDir "$Before"
  ${EndIf}

  ; 4. What Windows knows of it.
  SetOutPath "$INSTDIR\app"
  CreateShortCut "$SMPROGRAMS\Quorum.lnk" "$INSTDIR\app\quorum.exe" "" "$INSTDIR\app\quorum.exe" 0 SW_SHOWNORMAL "" \
    "The models on all your computers behind one address"
  SetOutPath "$INSTDIR"
  WriteUninstaller "$INSTDIR\uninstall.exe"
  ${GetSize} "$INSTDIR" "/S=0K" $0 $1 $2
  WriteRegStr HKCU "${UNINSTALL}" "DisplayName" "Quorum"
  WriteRegStr HKCU "${UNINSTALL}" "DisplayVersion" "${VERSION}"
  WriteRegStr HKCU "${UNINSTALL}" "Publisher" "${PUBLISHER}"
  WriteRegStr HKCU "${UNINSTALL}" "DisplayIcon" "$INSTDIR\app\quorum.exe,0"
  WriteRegStr HKCU "${UNINSTALL}" "InstallLocation" "$INSTDIR"
  WriteRegStr HKCU "${UNINSTALL}" "UninstallString" '"$INSTDIR\uninstall.exe"'
  WriteRegStr HKCU "${UNINSTALL}" "QuietUninstallString" '"$INSTDIR\uninstall.exe" /S'
  WriteRegDWORD HKCU "${UNINSTALL}" "EstimatedSize" $0
  WriteRegDWORD HKCU "${UNINSTALL}" "NoModify" 1
  WriteRegDWORD HKCU "${UNINSTALL}" "NoRepair" 1
SectionEnd

Section "Start at login" SEC_LOGIN
  WriteRegStr HKCU "${RUN}" "Quorum" '"$INSTDIR\app\quorum.exe" --hidden'
SectionEnd

Section "Allow other computers (firewall)" SEC_FIREWALL
  Call Rules
SectionEnd

Section "-end"
  ${IfNot} ${SectionIsSelected} ${SEC_LOGIN}
    DeleteRegValue HKCU "${RUN}" "Quorum"
    DeleteRegValue HKCU "${APPROVED}" "Quorum"
  ${EndIf}
  Call CheckWebView
  ${If} ${Silent}
  ${AndIf} $WasRunning == 1
    Exec '"$INSTDIR\app\quorum.exe" --hidden'
  ${EndIf}
SectionEnd

!insertmacro MUI_FUNCTION_DESCRIPTION_BEGIN
  !insertmacro MUI_DESCRIPTION_TEXT ${SEC_QUORUM} "$(DESC_QUORUM)"
  !insertmacro MUI_DESCRIPTION_TEXT ${SEC_LOGIN} "$(DESC_LOGIN)"
  !insertmacro MUI_DESCRIPTION_TEXT ${SEC_FIREWALL} "$(DESC_FIREWALL)"
!insertmacro MUI_FUNCTION_DESCRIPTION_END

; An upgrade offers what the user has now; without questions nothing asks for an administrator unless told to.
Function Choices
  ${GetParameters} $0
  ${If} $Before != ""
    ReadRegStr $1 HKCU "${RUN}" "Quorum"
    ${If} $1 == ""
      !insertmacro UnselectSection ${SEC_LOGIN}
    ${EndIf}
    !insertmacro HAVERULES
    ${If} $R0 != 0
      !insertmacro UnselectSection ${SEC_FIREWALL}
    ${EndIf}
  ${EndIf}
  ClearErrors
  ${GetOptions} $0 "/NOLOGIN" $1
  ${IfNot} ${Errors}
    !insertmacro UnselectSection ${SEC_LOGIN}
  ${EndIf}
  ${If} ${Silent}
    ClearErrors
    ${GetOptions} $0 "/FIREWALL" $1
    ${If} ${Errors}
      !insertmacro UnselectSection ${SEC_FIREWALL}
    ${Else}
      !insertmacro SelectSection ${SEC_FIREWALL}
    ${EndIf}
  ${EndIf}
  ClearErrors
FunctionEnd

!define NETSH "netsh advfirewall firewall"
!define DROP '${NETSH} delete rule name="${RULE_PEERS}" & ${NETSH} delete rule name="${RULE_MDNS}"'

; One question of Windows for both rules; refusing it is no failure of the setup.
Function Rules
  !insertmacro HAVERULES
  ${If} $R0 == 0
  ${AndIf} $Before == $INSTDIR
    Return
  ${EndIf}
  StrCpy $1 '${DROP} & ${NETSH} add rule name="${RULE_PEERS}" dir=in action=allow protocol=TCP \
    localport=${PEER_PORT} profile=private,domain program="$INSTDIR\app\quorum.exe"'
  StrCpy $1 '$1 & ${NETSH} add rule name="${RULE_MDNS}" dir=in action=allow protocol=UDP localport=5353 \
    profile=private,domain program="$INSTDIR\app\quorum.exe"'
  MessageBox MB_OK|MB_ICONINFORMATION "$(FIREWALL_ASKS)" /SD IDOK
  ExecShellWait "runas" "$SYSDIR\cmd.exe" '/d /c "$1"' SW_HIDE
  !insertmacro HAVERULES
  ${If} $R0 != 0
    DetailPrint "$(FIREWALL_REFUSED)"
    MessageBox MB_OK|MB_ICONEXCLAMATION "$(FIREWALL_REFUSED)" /SD IDOK
  ${EndIf}
  ClearErrors
FunctionEnd

; Windows 11 has it; on Windows 10 it may be missing.
Function CheckWebView
  ReadRegStr $0 HKLM "SOFTWARE\WOW6432Node\${WEBVIEW}" "pv"
  ${If} $0 == ""
  ${OrIf} $0 == "0.0.0.0"
    ReadRegStr $0 HKCU "Software\${WEBVIEW}" "pv"
  ${EndIf}
  ${If} $0 == ""
  ${OrIf} $0 == "0.0.0.0"
    DetailPrint "$(NEEDS_WEBVIEW)"
    MessageBox MB_OK|MB_ICONEXCLAMATION "$(NEEDS_WEBVIEW)" /SD IDOK
  ${EndIf}
  ClearErrors
FunctionEnd

Function .onInstFailed
  SetOutPath "$INSTDIR" ; a folder that is worked in can't be removed
  RMDir /r "$INSTDIR\app.new"
FunctionEnd

; The uninstaller

Function un.onInit
  SetShellVarContext current
  StrCpy $RemoveData 0
  ${un.GetParameters} $0
  ClearErrors
  ${un.GetOptions} $0 "/REMOVEDATA" $1
  ${IfNot} ${Errors}
    StrCpy $RemoveData 1
  ${EndIf}
FunctionEnd

Function un.DataPage
  !insertmacro MUI_HEADER_TEXT "$(KEEP_TITLE)" "$(KEEP_TEXT)"
  nsDialogs::Create 1018
  Pop $0
  ${If} $0 == error
    Abort
  ${EndIf}
  ${NSD_CreateLabel} 0 0 100% 36u "$(KEEP_FOLDER)"
  Pop $0
  ${NSD_CreateCheckbox} 0 44u 100% 12u "$(REMOVE_DATA)"
  Pop $Check
  nsDialogs::Show
FunctionEnd

Function un.DataPageLeave
  ${NSD_GetState} $Check $0
  StrCpy $RemoveData 0
  ${If} $0 == ${BST_CHECKED}
    StrCpy $RemoveData 1
  ${EndIf}
FunctionEnd

Section "Uninstall"
  close:
  !insertmacro CLOSE "un." "$INSTDIR\app"
  IfErrors running
  Goto remove
  running:
    MessageBox MB_RETRYCANCEL|MB_ICONEXCLAMATION "$(STILL_RUNS)" /SD IDCANCEL IDRETRY close
    SetErrorLevel 6
    Abort
  remove:
  ReadRegStr $0 HKCU "${RUN}" "Quorum"
  StrLen $1 '"$INSTDIR\app\quorum.exe"'
  StrCpy $0 $0 $1
  ${If} $0 == '"$INSTDIR\app\quorum.exe"'
    DeleteRegValue HKCU "${RUN}" "Quorum"
    DeleteRegValue HKCU "${APPROVED}" "Quorum"
  ${EndIf}
  Delete "$SMPROGRAMS\Quorum.lnk"
  RMDir /r "$INSTDIR\app"
  RMDir /r "$INSTDIR\app.new"
  RMDir /r "$INSTDIR\app.old"
  RMDir /r "$INSTDIR\.app.update"
  Delete "$INSTDIR\uninstall.exe"
  RMDir "$INSTDIR"
  DeleteRegKey HKCU "${UNINSTALL}"
  ${If} $RemoveData == 1
    RMDir /r "$LOCALAPPDATA\quorum"
  ${EndIf}
  Call un.Rules
SectionEnd

Function un.Rules
  ${If} ${Silent}
    Return
  ${EndIf}
  !insertmacro HAVERULES
  ${If} $R0 == 0
    ExecShellWait "runas" "$SYSDIR\cmd.exe" '/d /c "${DROP}"' SW_HIDE
    !insertmacro HAVERULES
    ${If} $R0 == 0
      MessageBox MB_OK|MB_ICONINFORMATION "$(FIREWALL_LEFT)"
    ${EndIf}
  ${EndIf}
FunctionEnd
